# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quick start: a YOLOv8n with SGDM
#
# Train, validate, look and export, on a dataset of shapes that the package draws itself. On two cores of a CPU it
# takes about five minutes. In a clone of the repository, `pip install ".[export]"` first.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from ultralytics import YOLO
from ultralytics.utils import DATASETS_DIR

import ultralytics_sgdm  # makes the layers known to Ultralytics
from ultralytics_sgdm.data import make_shapes

print("ultralytics_sgdm", ultralytics_sgdm.__version__)

# %% [markdown]
# ## The model
#
# `yolov8n-sgdm.yaml` is YOLOv8n with an SGDM behind the last C2f of the backbone and of the neck.

# %%
model = YOLO("yolov8n-sgdm.yaml")
stock = YOLO("yolov8n.yaml")
added = sum(p.numel() for p in model.model.parameters()) - sum(p.numel() for p in stock.model.parameters())
print(f"{added:+,} parameters")

# %% [markdown]
# ## Train
#
# `make_shapes` draws the dataset of `shapes.yaml`, unless it is there. With stock weights at hand,
# `model.load("yolov8n.pt")` moves every tensor.

# %%
make_shapes(DATASETS_DIR / "sgdm-shapes")
EPOCHS = 50
results = model.train(
    data="shapes.yaml",
    epochs=EPOCHS,
    imgsz=160,
    batch=8,
    nbs=8,
    optimizer="AdamW",
    lr0=0.002,
    warmup_epochs=1,
    mosaic=0.0,
    scale=0.2,
    flipud=0.5,
    workers=0,
    plots=False,
)
print(f"mAP50-95 {results.box.map:.3f}")

# %% [markdown]
# ## Look

# %%
best = YOLO(results.save_dir / "weights/best.pt")
images = sorted(Path(model.trainer.data["val"]).glob("*.jpg"))[:4]
figure, axes = plt.subplots(1, 4, figsize=(12, 3.5))
for ax, found in zip(axes, best.predict(images, imgsz=160, conf=0.4, agnostic_nms=True, verbose=False), strict=True):
    ax.imshow(found.plot()[..., ::-1])
    ax.axis("off")
plt.show()

# %% [markdown]
# ## Export
#
# The graph holds plain convolutions with constant weights; batch and size are free.

# %%
file = best.export(format="onnx", imgsz=160, dynamic=True, verbose=False)
again = YOLO(file, task="detect").predict(images[0], imgsz=160, verbose=False)[0]
print(f"{Path(file).name}: {len(again.boxes)} boxes in {images[0].name}")
