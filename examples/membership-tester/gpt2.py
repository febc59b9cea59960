"""Who was among the texts that a GPT-2 was fine-tuned on?

python gpt2.py                  a small GPT-2, made on the spot from texts that ship with Python: about a minute, no network
python gpt2.py --model gpt2     the same with OpenAI's weights, from the hub or a folder; better with a GPU
"""

from __future__ import annotations

import argparse
from pathlib import Path

from small import LENGTH, run, tell, trained

from memleak import MembershipTester
from memleak.data import topics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="what is fine-tuned: a folder or a name on the hub (default: a small one is made)")
    parser.add_argument("--output", type=Path, default=Path("gpt2-audit"), help="folder for models and the page")
    parser.add_argument("--quick", action="store_true", help="few texts and epochs, to see that it runs")
    options = parser.parse_args()
    n, n_base, epochs = (24, 50, 1) if options.quick else (300, 1200, 6)

    texts = list(topics.load().inputs)  # passages of Python's documentation, in a fixed order that mixes their topics
    members, others = texts[:n], texts[n : 2 * n]
    base = options.model or trained(topics.load_rest().inputs[:n_base], options.output / "base", epochs=epochs)
    tuned = trained(members, options.output / "fine-tuned", base, epochs=4, learning_rate=0.001 if options.model is None else 0.0001)

    with MembershipTester(str(tuned), max_length=LENGTH, reference=str(base)) as tester:
        tell(tester.run_attacks(members, others), options.output / "report.html")


if __name__ == "__main__":
    run(main)
