"""The report: reads artefacts, draws and words them, and computes no statistic."""
