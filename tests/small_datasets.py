"""Small datasets in the layouts of VOC and COCO, and a local server that can be told to fail."""

import http.server
import json
import threading
import zlib
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from ultralytics.data.dataset import YOLODataset

ROTATED = "<object><name>a</name><robndbox><cx>20</cx><cy>15</cy><w>16</w><h>8</h><angle>{}</angle></robndbox></object>"
TURN = "<attributes><attribute><name>rotation</name><value>{}</value></attribute></attributes>"


def write_image(path, width=40, height=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 255, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)
    return path


def an_object(name="cat", box=(1, 1, 10, 10), difficult=0, more=""):
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object>\n<name>{name}</name><difficult>{difficult}</difficult>{more}<bndbox>{sides}</bndbox>\n</object>\n"


def an_xml(*objects, size=(40, 30), more=""):
    size = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth/></size>\n" if size else ""
    return f"<annotation>\n{more}{size}{''.join(objects)}</annotation>\n"


def make_voc(folder, **lists):
    """Write a folder in VOC layout: for each list of ImageSets/Main a mapping of ids to XML or to objects."""
    for name, entries in lists.items():
        for i, content in entries.items():
            write_image(folder / f"JPEGImages/{i}.jpg")
            xml = folder / f"Annotations/{i}.xml"
            xml.parent.mkdir(parents=True, exist_ok=True)
            xml.write_text(content if isinstance(content, str) else an_xml(*content))
        file = folder / f"ImageSets/Main/{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{i}\n" for i in entries))
    return folder


def make_coco(folder, split, boxes_per_image, categories=((1, "person"), (3, "car"))):
    """Write FOLDER/SPLIT/*.jpg and FOLDER/annotations/instances_SPLIT.json; a box is (category, bbox, iscrowd)."""
    images, annotations = [], []
    for i, boxes in enumerate(boxes_per_image, 1):
        name = f"{i:012}.jpg"
        write_image(folder / split / name)
        images.append({"id": i, "file_name": name, "width": 40, "height": 30})
        for category, bbox, crowd in boxes:
            ids = {"id": len(annotations) + 100, "image_id": i, "category_id": category}
            mask = {"size": [30, 40], "counts": [0]}
            annotations.append(ids | {"bbox": bbox, "iscrowd": crowd, "segmentation": mask})
    file = folder / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    names = [{"id": i, "name": name} for i, name in categories]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": names}))
    return folder


def labels(dest, split, name):
    """Return the rows of a label as numbers."""
    return [list(map(float, row.split())) for row in (dest / f"labels/{split}/{name}.txt").read_text().splitlines()]


def loaded(data, split="train", task="detect"):
    """Return what Ultralytics loads of a split of a dataset."""
    return YOLODataset(img_path=data[split], data=data, task=task, augment=False).labels


def record(dest):
    """Return what conversion.json says."""
    return json.loads((dest / "conversion.json").read_text())


def tree(folder, times=True):
    """Return what a folder holds: content and, if wanted, inode and time of the last change of each file."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), (p.stat().st_ino, p.stat().st_mtime_ns) if times else None)
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file()
    }


@contextmanager
def serving(files):
    """Serve `files`, contents by name, on the loopback interface; what is yielded says how it fails."""
    state = SimpleNamespace(files=dict(files), ranges=True, status=200, requests=Counter(), sent=Counter())
    state.cuts = {}  # bytes after which the connection breaks: a list per name, one entry per request

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            name = self.path.rpartition("/")[2]
            state.requests[name] += 1
            if state.status != 200:
                self.send_error(state.status)
                return
            content, start = state.files[name], 0
            if state.ranges and (asked := self.headers.get("Range")):
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:][: (state.cuts.get(name) or [None]).pop(0)]
            state.sent[name] += len(body)
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
