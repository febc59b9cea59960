"""Train the audited model of the current folder and write its weights beside its code.

A ResNet-18 takes minutes on a GPU and hours on a CPU, the small network of quick/ half a minute on a CPU. Stands for
whatever trained your model: memleak reads the weights and the records, and never this file.
"""

import argparse
import runpy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.data import default_collate


def tensors(name):
    """All images and labels of a data set, as the audit gets them."""
    return default_collate(list(runpy.run_path(f"datasets/{name}/{name}.py")["get_dataset"]()))


def accuracy(network, images, labels):
    with torch.no_grad():
        return sum(int((network(x).argmax(1) == y).sum()) for x, y in zip(images.split(256), labels.split(256), strict=True)) / len(labels)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", type=Path, help="the file with get_model()")
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--learning-rate", type=float, default=0.001)
chosen = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
network = runpy.run_path(str(chosen.model))["get_model"]().to(device)
images, labels = (part.to(device) for part in tensors("cifar10_train"))
optimizer = torch.optim.AdamW(network.parameters(), lr=chosen.learning_rate)
n_steps = chosen.epochs * -(-len(labels) // chosen.batch_size)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, chosen.learning_rate, total_steps=n_steps)
for epoch in range(chosen.epochs):
    for batch in torch.randperm(len(labels), device=device).split(chosen.batch_size):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"epoch {epoch + 1} of {chosen.epochs}: loss {loss.item():.3f}", flush=True)
network.eval()
others = (part.to(device) for part in tensors("cifar10_test"))
print(f"accuracy: {accuracy(network, images, labels):.3f} on members, {accuracy(network, *others):.3f} on others")
save_file({name: value.cpu() for name, value in network.state_dict().items()}, chosen.model.with_suffix(".safetensors"))
