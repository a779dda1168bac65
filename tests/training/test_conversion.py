"""`label2label convert`: the public checkpoint's own graph and ours give the same numbers."""

import os
import resource
import signal

import numpy as np
import pytest
import torch
from label2label.cli import main
from label2label.errors import UserError
from label2label.faces.face import ARCFACE_TEMPLATE
from label2label.models import MobileFaceNetConfig, MobileFaceNetModel
from label2label.training.conversion import save_backbone
from PIL import Image
from torch import nn
from transformers import AutoBackbone, AutoConfig, AutoImageProcessor, AutoModel

STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def conv_bn(inputs, outputs, kernel=1, stride=1, groups=1, prelu=False):
    """Convolution, BatchNorm and activation, under the public names 0, 1 and 2."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.PReLU(outputs) if prelu else nn.ReLU6(),
    )


class PublicBottleneck(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion, prelu):
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            conv_bn(inputs, hidden, prelu=prelu),
            conv_bn(hidden, hidden, 3, stride, groups=hidden, prelu=prelu),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class PublicMobileFaceNet(nn.Module):
    """The checkpoint's own graph: its layers, under its names."""

    def __init__(self, stages=STAGES, stem=64, features=512, embedding=128, prelu=False):
        super().__init__()
        self.conv1 = conv_bn(3, stem, 3, stride=2, prelu=prelu)
        self.dw_conv = nn.Module()
        self.dw_conv.depthwise = nn.Conv2d(stem, stem, 3, padding=1, groups=stem, bias=False)
        self.dw_conv.bn1 = nn.BatchNorm2d(stem)
        self.dw_conv.pointwise = nn.Conv2d(stem, stem, 1, bias=False)
        self.dw_conv.bn2 = nn.BatchNorm2d(stem)
        blocks, channels = [], stem
        for expansion, outputs, repeats, stride in stages:
            for i in range(repeats):
                blocks.append(
                    PublicBottleneck(channels, outputs, 1 if i else stride, expansion, prelu)
                )
                channels = outputs
        self.features = nn.Sequential(*blocks)
        self.conv2 = conv_bn(channels, features, prelu=prelu)
        self.gdconv = nn.Module()
        self.gdconv.depthwise = nn.Conv2d(features, features, 7, groups=features, bias=False)
        self.gdconv.bn = nn.BatchNorm2d(features)
        self.conv3 = nn.Conv2d(features, embedding, 1)
        self.bn = nn.BatchNorm2d(embedding)

    def forward(self, x):
        x = self.conv1(x)
        x = self.dw_conv.bn1(self.dw_conv.depthwise(x)).relu()
        x = self.dw_conv.bn2(self.dw_conv.pointwise(x)).relu()
        feature_map = self.conv2(self.features(x))
        x = self.gdconv.bn(self.gdconv.depthwise(feature_map))
        return feature_map, self.bn(self.conv3(x)).flatten(1)


@pytest.fixture
def public_model():
    """A narrow public graph whose weights and statistics are all random."""
    torch.manual_seed(0)
    stages = [(2, 8, 5, 2), (4, 16, 1, 2), (2, 16, 6, 1), (4, 16, 1, 2), (2, 16, 2, 1)]
    model = PublicMobileFaceNet(stages, stem=8, features=32, embedding=12, prelu=True)
    return randomise(model)


def randomise(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # so that images stay apart to the last layer
    return model.eval()


@torch.no_grad()
def assert_parity(public_model, folder, pixel_values, tolerance=1e-5):
    feature_map, embedding = public_model(pixel_values)
    output = AutoModel.from_pretrained(folder).eval()(pixel_values)
    # AutoBackbone.from_pretrained asks the Hub for every name, so it cannot read a folder.
    backbone_class = type(AutoBackbone.from_config(AutoConfig.from_pretrained(folder)))
    (backbone_map,) = backbone_class.from_pretrained(folder).eval()(pixel_values).feature_maps
    assert torch.allclose(output.pooler_output, embedding, rtol=0, atol=tolerance)
    assert torch.allclose(output.last_hidden_state, feature_map, rtol=0, atol=tolerance)
    assert torch.allclose(backbone_map, feature_map, rtol=0, atol=tolerance)
    # A folder that loaded random weights, or a graph of constants, would not vary by image.
    assert embedding.std(dim=0).min() > 10 * tolerance


def test_public_checkpoint_gives_the_numbers_of_its_own_graph(shared, tmp_path):
    checkpoint = shared / "weights" / "mobilefacenet_ms1m_relu6.pt"
    public_model = PublicMobileFaceNet()
    public_model.load_state_dict(
        torch.load(checkpoint, map_location="cpu", weights_only=True), strict=True
    )
    public_model.eval()
    assert main(["convert", str(checkpoint), str(tmp_path / "backbone")]) == 0
    photo = Image.open(pytest.importorskip("matplotlib.cbook").get_sample_data("grace_hopper.jpg"))
    crops = [photo.crop((150 + d, 100, 380 + d, 330)) for d in (0, 20, 40, 60)]
    processor = AutoImageProcessor.from_pretrained(tmp_path / "backbone")
    pixel_values = processor(crops, return_tensors="pt").pixel_values
    assert_parity(public_model, tmp_path / "backbone", pixel_values)
    # The stem's second block is ReLU, not ReLU6: these faces tell them apart.
    stem = public_model.dw_conv.bn1(
        public_model.dw_conv.depthwise(public_model.conv1(pixel_values))
    )
    assert stem.max() > 6


@pytest.mark.parametrize("scripted", [False, True])
def test_widths_and_activation_are_told_from_the_checkpoint(public_model, tmp_path, scripted):
    if scripted:
        torch.jit.script(public_model).save(tmp_path / "narrow.pt")
    else:
        torch.save(public_model.state_dict(), tmp_path / "narrow.pt")
    assert main(["convert", str(tmp_path / "narrow.pt"), str(tmp_path / "backbone")]) == 0
    pixel_values = torch.randn(8, 3, 112, 112)
    with torch.no_grad():
        scale = float(public_model(pixel_values)[0].abs().max())
    assert_parity(public_model, tmp_path / "backbone", pixel_values, 1e-6 * max(10.0, scale))


def test_relu6_checkpoint_without_slopes_converts(tmp_path):
    torch.manual_seed(0)
    public_model = randomise(PublicMobileFaceNet())
    torch.save(public_model.state_dict(), tmp_path / "relu6.pt")
    assert main(["convert", str(tmp_path / "relu6.pt"), str(tmp_path / "backbone")]) == 0
    model = AutoModel.from_pretrained(tmp_path / "backbone")
    assert model.config.hidden_act == "relu6"
    assert model.config.stem_pointwise


def test_folder_has_the_processor_of_the_recognition_crop(public_model, tmp_path):
    torch.save(public_model.state_dict(), tmp_path / "narrow.pt")
    main(["convert", str(tmp_path / "narrow.pt"), str(tmp_path / "backbone")])
    processor = AutoImageProcessor.from_pretrained(tmp_path / "backbone")
    assert np.allclose(processor.alignment_template, ARCFACE_TEMPLATE)
    # No leftover of the folder it was put together in.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backbone", "narrow.pt"]


def save_changed(change):
    """Write a state dict with some tensors replaced, or left out if `None`."""

    def write(path, state):
        changed = {**state, **change}
        torch.save({name: value for name, value in changed.items() if value is not None}, path)

    return write


def truncate(path, state):
    torch.save(state, path)
    os.truncate(path, path.stat().st_size // 2)


BAD = {
    "missing": lambda path, state: None,
    "empty": lambda path, state: path.touch(),
    "text": lambda path, state: path.write_text("not a checkpoint\n" * 50),
    "truncated": truncate,
    "folder": lambda path, state: path.mkdir(),
    "other model": lambda path, state: torch.save({"weight": torch.zeros(2, 2)}, path),
    "tensor": lambda path, state: torch.save(torch.zeros(3), path),
    "pickled model": lambda path, state: torch.save(nn.Linear(2, 2), path),
    "extra parameter": save_changed({"features.99.conv.3.weight": torch.zeros(2)}),
    "missing parameter": save_changed({"gdconv.bn.weight": None}),
    "missing layer": save_changed({"features.6.conv.0.0.weight": None}),
    "wrong shape": save_changed({"features.3.conv.3.weight": torch.zeros(7)}),
    "width 0": save_changed({"conv1.0.weight": torch.zeros(0, 3, 3, 3)}),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_checkpoint_ends_in_one_line_and_writes_nothing(kind, public_model, tmp_path, capsys):
    checkpoint = tmp_path / "bad.pt"
    BAD[kind](checkpoint, public_model.state_dict())
    assert main(["convert", str(checkpoint), str(tmp_path / "out" / "backbone")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "bad.pt" in error
    assert not (tmp_path / "out").exists()


def test_output_that_holds_something_else_is_left_alone(public_model, tmp_path, capsys):
    torch.save(public_model.state_dict(), tmp_path / "narrow.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert main(["convert", str(tmp_path / "narrow.pt"), str(tmp_path / "out")]) == 2
    assert "is not a model folder" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path):
    model = MobileFaceNetModel(MobileFaceNetConfig(width_multiplier=0.25))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # fails as a full disk does
    try:
        with pytest.raises(UserError, match=r"cannot be written: .*File too large"):
            save_backbone(model, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
