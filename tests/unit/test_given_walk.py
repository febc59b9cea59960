def test_x(given_walk, given_alone):
    import json
    for w in (given_walk, given_alone):
        m = w.metrics
        print(json.dumps({k: v for k, v in m.items() if k not in ("classes","comparison","agreement")}, indent=0)[:6000])
        for a, v in m["attacks"].items(): print(a, v["auc"], v["n_references"], v["n_references_of_mocks"], v.get("n_queries"), v.get("natural") and v["natural"]["tpr"], [ (c["at_fpr"], c["achieved_fpr"], c["tpr"]) for c in v["calibrated"]])
