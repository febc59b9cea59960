"""Train the audited model and write its weights beside its code: a ResNet-18, minutes on a GPU and hours on a CPU.

Stands for whatever trained your model: memleak reads the weights and the records, and never this file.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.data import default_collate

HERE = Path(__file__).parent
sys.path += [str(HERE / folder) for folder in ("datasets/cifar10_train", "datasets/cifar10_test", "models/resnet18_10classes")]

import cifar10_test  # noqa: E402
import cifar10_train  # noqa: E402
import resnet18  # noqa: E402


def accuracy(network, images, labels):
    with torch.no_grad():
        return sum(int((network(x).argmax(1) == y).sum()) for x, y in zip(images.split(256), labels.split(256), strict=True)) / len(labels)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=30)
epochs = parser.parse_args().epochs
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
network = resnet18.get_model().to(device)
images, labels = (part.to(device) for part in default_collate(list(cifar10_train.get_dataset())))
optimizer = torch.optim.AdamW(network.parameters(), lr=0.001)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.001, total_steps=epochs * -(-len(labels) // 128))
for epoch in range(epochs):
    for batch in torch.randperm(len(labels), device=device).split(128):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
network.eval()
others = (part.to(device) for part in default_collate(list(cifar10_test.get_dataset())))
print(f"accuracy: {accuracy(network, images, labels):.3f} on members, {accuracy(network, *others):.3f} on others")
save_file({name: value.cpu() for name, value in network.state_dict().items()}, HERE / "models/resnet18_10classes/resnet18.safetensors")
