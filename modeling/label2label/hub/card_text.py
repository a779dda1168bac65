"""The model card's prose and the figures of others; our own figures come from JSON."""

SUMMARY = """# {name}: facial attributes in {size}

Tells {attributes} facial attributes (CelebA's) of an aligned face. {kind}Attributes are treated as
the words of a sentence: an Attribute Query Network (AQN) guesses each of them from the image, and
an image-conditioned masked language model (IC-MLM) reads the guesses as a sentence and gives the
answers; attributes that you already know can stand in it, and condition the others. This is
Label2label on MobileFaceNet, with a head that is lighter than the backbone.

**Code Apache-2.0, weights for non-commercial research only**: see the terms below."""

# What a model is beside the default one, by its last recipe.
KINDS = {
    "tiny": "It is half as wide as `celeba-mobilefacenet`, and less accurate: a little on faces "
    "that fill the crop as CelebA's do, far more where they are larger in it (below). ",
    "group-balanced-framings": "It is `celeba-mobilefacenet` after fine-tuning on UTKFace "
    "in two framings, all races drawn equally often: what that gained and cost stands below. ",
}

# How the examples name a model that ships; `name_repository` puts a Hub id in its place.
SHIPPED_IMPORT = "from label2label.checkpoints import find_checkpoint\n"
SHIPPED_MODEL = 'find_checkpoint("{name}")'

USE = """## Use

```python
from transformers import pipeline
{source}
classify = pipeline("image-classification", model={model}, trust_remote_code=True)
print(classify("aligned_face.jpg", top_k=5))  # probabilities, one an attribute
```

or, for every attribute (the model also takes `known_labels`: 1, 0, or -100 where unknown):

```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
{source}
processor = AutoImageProcessor.from_pretrained({model}, trust_remote_code=True)
model = AutoModelForImageClassification.from_pretrained({model}, trust_remote_code=True)
inputs = processor(Image.open("aligned_face.jpg"), return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
print(processor.post_process_attributes(outputs)[0])
```

For any photo, with faces found and aligned as the model expects:

```bash
label2label predict photo.jpg --model {name}
```

A photo that is not an aligned face crop (the template is in `preprocessor_config.json`) gives poor
answers when it goes to the model as it is, as a widget gives it."""

ENDPOINTS = """As an Inference Endpoint the repository serves itself by its `handler.py`: send an
image, its base64 text or its address as `inputs`, and `detect_faces`, `top_k`, `threshold` or
`known_labels` (`{"Male": false}`) as `parameters`."""

COMPARISON = """## Beside the papers' figures

These figures are not comparable one to one, and we claim no rank:

- **Data.** Ours are 8,790 images, all of CelebA's official *training* part, at half its resolution
  (89x109), split anew into 7,143 training, 605 validation and 1,042 test images that share no
  person. Slim-CNN, SwinFace and FaceXFormer train on the official 162,770 images, over 20 times as
  many, and test on the official test part. The MobileFaceNet-based Label2label paper gives neither
  its split nor its data pipeline.
- **Protocol.** Accuracy is the mean over images and attributes, as the Label2label papers define
  it; ours comes from one forward pass, without test-time augmentation.
- **Size.** The MobileFaceNet-based Label2label paper counts its backbone alone; its head is as in
  the original, at least 126 M parameters. Ours is the whole model."""

PUBLISHED = (
    ("MobileFaceNet-based Label2label (2024)", "backbone 1.0 M", "0.8810", "CelebA"),
    ("the same paper, ResNet-50", "backbone 40.29 M", "0.8813", "CelebA"),
    ("Slim-CNN (arXiv:1907.02157)", "", "0.9124", "CelebA, official test part"),
    ("SwinFace", "", "0.9138", "CelebA, official test part"),
    ("FaceXFormer (arXiv:2403.12960)", "", "0.9183", "CelebA, official test part"),
)

LIMITS = """## Limits, and what not to use it for

- **Do not** use it to identify people, to infer ethnicity, religion, health, sexual orientation or
  gender identity, to watch people, or in decisions about a person (hiring, credit, insurance,
  policing, access). The attribute names are CelebA's: `Male` is an annotator's reading of a photo,
  not a person's gender, and `Attractive`, `Chubby`, `Big_Nose` or `Young` are opinions.
- **The labels are noisy.** An audit of CelebA (arXiv:2210.07356) found only 12 of the 40 attributes
  labelled with at least 95 % consistency, so part of every error here is the label's, and no model
  should be expected to reach 1.
- **CelebA is not everyone.** It shows celebrities, most of them white and young adults, posed and
  well lit. On children, old people, other ethnicities, other light, poses or cameras expect worse
  answers: measure on your own people with `label2label evaluate --group` first.
- **Rare attributes** (`Bald`, `Mustache`, `Gray_Hair`, ...) have few positive test images: their
  intervals are wide and their accuracy is near the majority's.
- Probabilities are calibrated to faces like CelebA's: on others, do not read them as chances.
- Faces much smaller than CelebA's crops, turned away or mostly covered were not tested."""

TRAINING = """## Training

- **Data**: the training split above{more}. CelebA (Liu et al., ICCV 2015) is for non-commercial
  research only and is not redistributed here: no image or label of it is part of this repository.
- **Start**: a public MobileFaceNet trained for face recognition on MS-Celeb-1M
  (foamliu/MobileFaceNet, Apache-2.0), converted by `label2label convert`. MS-Celeb-1M was withdrawn
  by its publisher; it was collected from the web without the consent of the people in it.
- **Recipe**: one `label2label train --recipe NAME` after the other (`training/recipes/`); of each
  the epoch with the best validation accuracy is kept.
{rounds}
  `label2label calibrate` fitted temperature and thresholds to CelebA's validation labels.
  {coupling}"""

COUPLED = "What known words tell of the others it fitted to the training labels."

COUPLED_BEFORE = "What known words tell of the others is as in the default model."

UTKFACE = """, and the training part of UTKFace (Zhang et al., CVPR 2017; non-commercial research
  only), of which `Male` and `Young` (by an age cut of `datasets_scripts/utkface.py`) are known"""

# By recipe, in the order of training.
ROUNDS = {
    "celeba": "AdamW with warm-up and cosine decay, a lower learning rate for the backbone than "
    "for the head, flips, shifts, colour and erasing, mixup of images and words, an exponential "
    "moving average of the weights, and masked words with probability 0.1, as in Label2Label.",
    "celeba-distilled": "goes on from that model: beside the labels it learns from the mean of "
    "that model's probabilities and of a linear probe of the face-recognition backbone, of which "
    "each image is answered by one that was not fitted on it. Some true words are given with every "
    "second image. This is the default model.",
    "tiny": "starts from those half of the channels of the default model's backbone that weigh "
    "most, with a narrower head, and learns from the labels and from the default model.",
    "finetune-shifted": "goes on from the default model with UTKFace's faces labelled Asian.",
    "finetune-merged": "goes on from the default model with UTKFace's faces labelled Asian and a "
    "replay of CelebA, on which the default model teaches.",
    "group-balanced": "goes on from the default model with UTKFace, whose races are drawn equally "
    "often, and a replay of CelebA, on which the default model teaches. The replay was made larger "
    "after a first, smaller one's figures on test had been seen: what test says is a little kind.",
    "group-balanced-framings": "goes on from the default model with UTKFace in two framings, its "
    "own crops and aligned as photos are, whose races are drawn equally often, and a replay of "
    "CelebA, on which the default model teaches. The replay's size, the second framing and the "
    "rule of choice came after other models' figures on test had been seen: what test says is a "
    "little kind.",
    "group-dro": "goes on from the default model with UTKFace, whose worst races weigh most (group "
    "DRO, arXiv:1911.08731), and a replay of CelebA, on which the default model teaches.",
}

EMISSIONS = """- **Cost**: {hours:.1f} hours on {cores} CPU cores, about {grams:g} g of CO2
  equivalent (estimated by Green Algorithms, arXiv:2007.07610, with its defaults)."""

PLAIN = """# {name}

Tells {attributes} attributes of an aligned face: {names}. It is a Label2label model: attributes are
the words of a sentence, which an Attribute Query Network guesses from the image and an
image-conditioned masked language model reads again.

**Nothing was measured of this model, or its results are not part of this repository.** Measure it
on your own people before you rely on it: `label2label evaluate --group`."""

BACKBONE = """# MobileFaceNet

The backbone of a light face model: its feature maps, or a face embedding, of aligned faces of
{size}x{size} pixels. Converted from a public checkpoint by `label2label convert`.

```python
from transformers import AutoBackbone, AutoModel

backbone = AutoBackbone.from_pretrained({model}, trust_remote_code=True)  # feature maps
encoder = AutoModel.from_pretrained({model}, trust_remote_code=True)  # pooler_output: embedding
```"""

PLAIN_LICENSE = """## Licence and terms

The **code** is Apache-2.0. The terms of the **weights** follow from the data and the weights that
they were trained from, which this card does not know."""

LICENSE = """## Licence and terms

The **code** is Apache-2.0. The **weights** are derived from {sources}
non-commercial research only: use them for that, and for nothing else. To use the architecture
commercially, train it on data that you may use so: the code and the recipe are free for that."""

CELEBA_ALONE = "CelebA, whose agreement allows"
CELEBA_AND_UTKFACE = "CelebA and UTKFace, whose terms allow"

CITATION = """## Citation

The model follows three papers:

```bibtex
@inproceedings{li2022label2label,
  title     = {Label2Label: A Language Modeling Framework for Multi-Attribute Learning},
  author    = {Li, Wanhua and Cao, Zhexuan and Feng, Jianjiang and Zhou, Jie and Lu, Jiwen},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2022}
}

@article{chen2018mobilefacenets,
  title   = {MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
             Devices},
  author  = {Chen, Sheng and Liu, Yang and Gao, Xiang and Han, Zhen},
  journal = {arXiv preprint arXiv:1804.07573},
  year    = {2018}
}

@misc{mobilefacenetlabel2label2024,
  title       = {MobileFaceNet-based Label2label: compression and racial-bias mitigation},
  institution = {Sungkyunkwan University},
  year        = {2024}
}
```"""

_MATPLOTLIB = "https://raw.githubusercontent.com/matplotlib/matplotlib/v3.9.0/lib/matplotlib/"
_SCIKIT_IMAGE = "https://raw.githubusercontent.com/scikit-image/scikit-image/v0.24.0/skimage/"

WIDGET = [
    {
        "src": _MATPLOTLIB + "mpl-data/sample_data/grace_hopper.jpg",
        "example_title": "Grace Hopper (public domain, U.S. Navy)",
    },
    {
        "src": _SCIKIT_IMAGE + "data/astronaut.png",
        "example_title": "Eileen Collins (public domain, NASA)",
    },
]
