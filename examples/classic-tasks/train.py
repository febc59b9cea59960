"""Train the audited model and write its weights beside its code: a ResNet-18, minutes on a GPU and hours on a CPU.

Stands for whatever trained your model: memleak reads the weights and the records, and never this file.
"""

import argparse
import runpy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.data import default_collate

HERE = Path(__file__).parent
MODEL = HERE / "models/resnet18_10classes/resnet18.py"


def tensors(name):
    """All images and labels of a data set, as the audit gets them."""
    return default_collate(list(runpy.run_path(str(HERE / f"datasets/{name}/{name}.py"))["get_dataset"]()))


def accuracy(network, images, labels):
    with torch.no_grad():
        return sum(int((network(x).argmax(1) == y).sum()) for x, y in zip(images.split(256), labels.split(256), strict=True)) / len(labels)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=30)
epochs = parser.parse_args().epochs
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
network = runpy.run_path(str(MODEL))["get_model"]().to(device)
images, labels = (part.to(device) for part in tensors("cifar10_train"))
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
others = (part.to(device) for part in tensors("cifar10_test"))
print(f"accuracy: {accuracy(network, images, labels):.3f} on members, {accuracy(network, *others):.3f} on others")
save_file({name: value.cpu() for name, value in network.state_dict().items()}, MODEL.with_suffix(".safetensors"))
