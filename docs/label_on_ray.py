"""Label photos on a Ray cluster, with `pip install "ray[data]"`:

python docs/label_on_ray.py holiday/ runs/labels --workers 2
"""

import argparse

import ray
from label2label.prediction.labelling import BatchLabeller


def label_on_ray(
    photos: str, output: str, workers: int = 2, model: str | None = None, align: bool = True
) -> None:
    """Label a folder of photos by a pool of workers, each of which holds the model.

    Args:
        photos: folder, or whatever else `ray.data.read_binary_files` takes, such as `s3://...`.
        output: folder to write Parquet files to, a row per face.
        workers: processes; those of a cluster are on its machines.
        model: as `label2label predict --model` takes it.
        align: whether to find and align faces; if not, each photo is one face's crop.
    """
    options = {"image_column": "bytes", "name": model, "align": align, "threads": 1}
    images = ray.data.read_binary_files(photos, include_paths=True)  # columns: bytes, path
    labels = images.map_batches(
        BatchLabeller,
        fn_constructor_kwargs=options,
        batch_size=64,
        concurrency=workers,
    )
    labels.write_parquet(output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Label photos on a Ray cluster.")
    parser.add_argument("photos")
    parser.add_argument("output")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model")
    parser.add_argument("--no-align", dest="align", action="store_false")
    label_on_ray(**vars(parser.parse_args()))
