"""A hospital's model of clinical notes: is it seen whose notes it was fine-tuned on, and does training less help?

    python medical_case_study.py                                               made-up notes, a model made on the spot: about a minute, no network
    python medical_case_study.py --data medquad.parquet --unit focus           texts of a file with the columns text and focus
    python medical_case_study.py --checkpoint stories260k                      another model to begin with: a folder, or a name on the hub

All notes of a patient are on one side, and one of them is audited: notes of one person are alike, and two of them would not be two findings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from small import LENGTH, run, tell, trained

from memleak import AttackReport, MembershipTester, data

FIRST = [
    "Ada",
    "Bela",
    "Cem",
    "Dora",
    "Emil",
    "Fay",
    "Gil",
    "Hana",
    "Ivo",
    "Jun",
    "Kaja",
    "Leo",
    "Mila",
    "Nuri",
    "Olga",
    "Per",
    "Rosa",
    "Sven",
    "Tilda",
    "Uwe",
]
LAST = [
    "Amsel",
    "Birke",
    "Clay",
    "Dorn",
    "Eibe",
    "Fuchs",
    "Glen",
    "Hirsch",
    "Ilex",
    "Jay",
    "Kiefer",
    "Linde",
    "Moor",
    "Nebel",
    "Otter",
    "Pappel",
    "Reed",
    "Salter",
    "Teal",
    "Ulme",
]
ILLS = ["asthma", "gout", "migraine", "a wrist fracture", "type 2 diabetes", "hypertension", "eczema", "sciatica", "tonsillitis", "insomnia"]
SIGNS = [
    "a dry cough",
    "pain at night",
    "blurred vision",
    "dizziness when rising",
    "swollen ankles",
    "a rash on both arms",
    "no appetite",
    "a stiff neck",
]
DRUGS = ["metrolin", "cardaspan", "pulvenol", "dermatine", "somnexil", "glucarine"]  # no drug is called so


def made_up_notes(n_patients: int) -> pd.DataFrame:
    """Two notes each of patients who do not exist, in the words of one template: text, patient."""
    draw = np.random.default_rng(0)
    rows = []
    for patient in range(n_patients):
        name, age = f"{draw.choice(FIRST)} {draw.choice(LAST)}", draw.integers(18, 95)
        for _ in range(2):
            sign, other = draw.choice(SIGNS, 2, replace=False)
            rows.append({
                "patient": patient,
                "text": f"{name}, {age}, seen on {draw.integers(1, 29)}/{draw.integers(1, 13)} for {draw.choice(ILLS)} with {sign} and {other}; "
                f"pulse {draw.integers(52, 110)}, {draw.choice(DRUGS)} {draw.integers(1, 40) * 5} mg, back in {draw.integers(2, 30)} days.",
            })  # fmt: skip
    return pd.DataFrame(rows)


def notes_of(options: argparse.Namespace) -> pd.DataFrame:
    """The texts, and `patient`: whom each belongs to."""
    if options.data is None:
        return made_up_notes(120 if options.quick else 700)
    found = data.texts.load(str(options.data))
    if options.unit not in found.columns:
        raise ValueError(f"--unit: {options.data} has no column '{options.unit}'; it has {', '.join(found.columns) or 'none beside text'}")
    return pd.DataFrame({"text": found.inputs, "patient": found.columns[options.unit]})


def dealt(notes: pd.DataFrame, n: int) -> list[pd.DataFrame]:
    """The notes of n members, of n others, and of everybody else, drawn at random by patient."""
    patients = np.random.default_rng(0).permutation(notes["patient"].unique())
    if len(patients) < 2 * n:
        raise ValueError(f"the notes are of {len(patients)} patients, {2 * n} are expected; bring more")
    return [notes[notes["patient"].isin(part)] for part in np.split(patients, [n, 2 * n])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="texts: .parquet, .csv, .jsonl (default: made-up notes)")
    parser.add_argument("--unit", default="patient", help="column that says to whom a text belongs (default: patient)")
    parser.add_argument(
        "--checkpoint", help="what is fine-tuned: a folder or a name on the hub (default: a small model is made from notes of others)"
    )
    parser.add_argument("--output", type=Path, default=Path("medical-audit"), help="folder for models and pages")
    parser.add_argument("--quick", action="store_true", help="few texts and epochs, to see that it runs")
    options = parser.parse_args()
    members, others, rest = dealt(notes_of(options), 20 if options.quick else 150)
    base = options.checkpoint or trained(rest["text"], options.output / "base", epochs=1 if options.quick else 8)

    def audit(name: str, epochs: int) -> AttackReport:
        """Fine-tune on the members for some epochs, and ask who they were."""
        tuned = trained(members["text"], options.output / name, base, epochs=epochs, learning_rate=0.001)
        with MembershipTester(str(tuned), max_length=LENGTH, reference=str(base)) as tester:
            report = tester.run_attacks(*(list(notes.drop_duplicates("patient")["text"]) for notes in (members, others)))
        tell(report, options.output / f"{name}.html")
        return report

    many, few = audit("fine-tuned", 2 if options.quick else 8), audit("fine-tuned-less", 1 if options.quick else 2)
    print("\nWhat fewer epochs change, attack by attack:", many.compare(few).round(3).to_string(index=False), sep="\n")
    seen, unseen = (" and ".join(f"{report.found['fit'][side]:.2f}" for report in (many, few)) for side in ("members", "non_members"))
    print(f"\nNats a token after many and after few epochs: {seen} on notes that were trained on, {unseen} on others.")


if __name__ == "__main__":
    run(main)
