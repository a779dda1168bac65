"""`handler.py` as Inference Endpoints' toolkit calls it, from a checkout of a model repository."""

import base64
import contextlib
import importlib.util
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import unquote

import matplotlib
import numpy as np
import pytest
import torch
from label2label import Label2LabelForImageClassification
from label2label.checkpoints import default_checkpoint
from label2label.faces import detection
from label2label.hub.model_repository import model_repository
from label2label.prediction.predictor import AttributePredictor
from PIL import Image
from transformers import pipeline

from .conftest import ATTRIBUTES, save_model

HOPPER = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"


def check_out(model, folder):
    """What `snapshot_download` would leave of the model's repository."""
    for path, content in model_repository(model, "someone/faces").files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder


def load_handler(folder):
    """The toolkit's `check_and_register_custom_pipeline_from_directory`."""
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.EndpointHandler(str(folder))


def serve(handler, body, content_type="application/json"):
    """The toolkit's `predict`: a request's body in, what is answered out."""
    if content_type.startswith("image/"):
        data = {"inputs": Image.open(io.BytesIO(body)).convert("RGB")}
    else:
        data = json.loads(body)
    try:
        return 200, json.loads(json.dumps(handler(data)))
    except Exception as error:
        return 400, {"error": str(error)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endpoint")
    return check_out(save_model(folder / "tiny"), folder / "checkout")


@pytest.fixture(scope="module")
def loaded(checkout):
    return load_handler(checkout)


@pytest.fixture
def handler(loaded):
    return loaded[1]


@pytest.fixture(scope="module")
def face():
    """A drawn PNG of 60x50 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def expected(checkout, face):
    """What transformers' own pipeline says, highest first."""
    classify = pipeline("image-classification", model=str(checkout), trust_remote_code=True)
    return classify(Image.open(io.BytesIO(face)), top_k=len(ATTRIBUTES))


def encoded(body, **parameters):
    text = base64.b64encode(body).decode()
    return json.dumps({"inputs": text, **({"parameters": parameters} if parameters else {})})


def assert_same(answer, expected):
    assert [entry["label"] for entry in answer] == [entry["label"] for entry in expected]
    scores = [entry["score"] for entry in expected]
    assert [entry["score"] for entry in answer] == pytest.approx(scores, abs=1e-6)


def test_an_image_body_gives_labels_and_scores_like_the_pipeline(handler, face, expected):
    status, answer = serve(handler, face, "image/png")
    assert status == 200
    assert_same(answer, expected)


def test_weights_of_half_precision_answer_too(tmp_path, face):
    folder = check_out(save_model(tmp_path / "tiny"), tmp_path / "checkout")
    half = Label2LabelForImageClassification.from_pretrained(folder, dtype=torch.float16)
    half.save_pretrained(folder)
    status, answer = serve(load_handler(folder)[1], encoded(face))
    assert status == 200
    assert len(answer) == len(ATTRIBUTES)


def test_base64_bytes_and_data_urls_give_the_same(handler, face, expected):
    assert_same(serve(handler, encoded(face))[1], expected)
    text = base64.b64encode(face).decode()
    assert_same(handler({"inputs": f"data:image/png;base64,{text}"}), expected)
    assert_same(handler({"inputs": face}), expected)


def test_a_list_gives_a_list(handler, face, expected):
    answers = handler({"inputs": [face, face]})
    assert len(answers) == 2
    assert_same(answers[1], expected)
    assert handler({"inputs": []}) == []


def test_top_k_and_threshold_choose(handler, face, expected):
    assert_same(serve(handler, encoded(face, top_k=2))[1], expected[:2])
    middle = (expected[1]["score"] + expected[2]["score"]) / 2
    assert_same(serve(handler, encoded(face, threshold=middle))[1], expected[:2])
    # The address's parameters arrive as text.
    assert_same(handler({"inputs": face, "parameters": {"top_k": "2"}}), expected[:2])


def test_known_labels_condition_the_others(handler, face, expected):
    answer = serve(handler, encoded(face, known_labels={"Male": True, "Young": False}))[1]
    before = {entry["label"]: entry["score"] for entry in expected}
    after = {entry["label"]: entry["score"] for entry in answer}
    assert max(abs(before[name] - after[name]) for name in ("Bald", "Smiling")) > 1e-6


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"instances": []}, "has no `inputs`"),
        ({"inputs": "no base64!"}, "neither base64 nor"),
        ({"inputs": base64.b64encode(b"no image").decode()}, "not an image|cannot be read"),
        ({"inputs": 7}, "an image is its bytes"),
        ({"inputs": "/etc/passwd"}, "neither base64 nor|cannot be read"),
        ({"inputs": "file:///etc/passwd"}, "neither base64 nor"),
        ({"inputs": "http://a..b/face.png"}, "the image's address is no URL"),
        ({"inputs": "http://8.8.8.8/\ud800.png"}, "the image's address is no URL"),
        ({"inputs": "", "parameters": {"top_k": 0}}, "top_k is 1 or more"),
        ({"inputs": "", "parameters": {"top_k": float("inf")}}, "are numbers"),
        ({"inputs": "", "parameters": {"threshold": "high"}}, "are numbers"),
        ({"inputs": "", "parameters": 5}, "parameters is an object"),
        ({"inputs": "", "parameters": {"detect_faces": "yes"}}, "detect_faces is true or false"),
        ({"inputs": "", "parameters": {"colour": 1}}, "unknown parameter 'colour'"),
        ({"inputs": "", "parameters": {"known_labels": {"Tall": True}}}, "no attribute 'Tall'"),
        ({"inputs": "", "parameters": {"known_labels": {"Bald": 2}}}, "are true or false"),
    ],
)
def test_a_bad_request_is_told_in_one_line(handler, request_, message):
    with pytest.raises(ValueError, match=message) as error:
        handler(request_)
    assert "\n" not in str(error.value)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(handler):
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")
    with pytest.raises(ValueError, match="more than 50 megapixels"):
        handler({"inputs": file.getvalue()})


PHOTO = "/사진 1.jpg?größe=5 & 6"


@pytest.fixture
def server(face):
    """A server of the image, of redirects to it, and of too much."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/face.png")
                self.end_headers()
            elif self.path == "/renamed":  # as some servers say it, in bytes of UTF-8
                self.send_response(302)
                self.send_header("Location", PHOTO.encode().decode("latin-1"))
                self.end_headers()
            elif self.path == "/loop":
                self.send_response(302)
                self.send_header("Location", "/loop")
                self.end_headers()
            elif self.path == "/inside":
                self.send_response(302)
                self.send_header("Location", "http://169.254.169.254/latest/meta-data")
                self.end_headers()
            elif unquote(self.path) in ("/face.png", PHOTO) or (
                self.path == "/named" and self.headers["Host"].startswith("photos.example:")
            ):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(face)
            elif self.path == "/large":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(bytes(2_000))
            else:
                self.send_error(404)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def web(server):
    """The server's address."""
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_an_address_is_fetched_and_its_redirects_followed(loaded, web, face, expected, monkeypatch):
    module, handler = loaded
    asked = []
    monkeypatch.setattr(
        module, "_public_addresses", lambda host: asked.append(host) or ["127.0.0.1"]
    )
    for path in ("/face.png", "/moved"):
        assert_same(serve(handler, json.dumps({"inputs": web + path}))[1], expected)
    assert asked == ["127.0.0.1"] * 3
    monkeypatch.setattr(module, "MAX_BYTES", 1_000)
    for path, message in (("/none", "404"), ("/loop", "too often"), ("/large", "larger than")):
        with pytest.raises(ValueError, match=message):
            handler({"inputs": web + path})


@pytest.mark.parametrize("path", [PHOTO, PHOTO.replace(" ", "%20"), "/renamed"])
def test_addresses_are_fetched_as_people_write_them(loaded, web, expected, monkeypatch, path):
    module, handler = loaded
    monkeypatch.setattr(module, "_public_addresses", lambda host: ["127.0.0.1"])
    assert_same(handler({"inputs": web + path}), expected)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]", "[::7f00:1]"),
        *("[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]", "[2001:0:1::1]"),
    ],
)
def test_addresses_of_the_endpoints_own_network_are_not_fetched(handler, host):
    status, answer = serve(handler, json.dumps({"inputs": f"http://{host}/face.png"}))
    assert status == 400
    assert "is not on the public network" in answer["error"]


@pytest.mark.parametrize("sent", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nX: "])
def test_a_server_that_drips_bytes_does_not_hold_the_endpoint(loaded, sent, monkeypatch):
    module, handler = loaded
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    monkeypatch.setattr(module, "_public_addresses", lambda host: ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(sent)
                for _ in range(60):  # until the other end hangs up, or three seconds are over
                    connection.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        start = time.monotonic()
        with pytest.raises(ValueError, match="cannot be reached: timed out"):
            handler({"inputs": f"http://127.0.0.1:{listener.getsockname()[1]}/face.png"})
        assert time.monotonic() - start < 2
        thread.join()


def test_a_redirect_into_the_endpoints_own_network_is_not_followed(loaded, web, monkeypatch):
    module, handler = loaded
    check = module._public_addresses
    monkeypatch.setattr(
        module,
        "_public_addresses",
        lambda host: [host] if host == "127.0.0.1" else check(host),
    )
    with pytest.raises(ValueError, match=r"169\.254\.169\.254 is not on the public network"):
        handler({"inputs": f"{web}/inside"})


PUBLIC = ["8.8.4.4", "8.8.8.8"]


@pytest.fixture
def rebound(monkeypatch):
    """Let names lead to public addresses when they are asked for first, and to this machine from
    then on. Connections to the second public address arrive here. Returns what was asked."""
    asked, connected = set(), []
    resolve, connect = socket.getaddrinfo, socket.create_connection

    def getaddrinfo(host, port, *args, **kwargs):
        if not host.endswith(".example"):
            return resolve(host, port, *args, **kwargs)
        addresses = ["127.0.0.1"] if host in asked else PUBLIC
        asked.add(host)
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, (address, port or 0)) for address in addresses]

    def create_connection(address, *args, **kwargs):
        connected.append(address[0])
        if address[0] == PUBLIC[0]:
            raise ConnectionRefusedError("refused")
        return connect(("127.0.0.1", address[1]), *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    return connected


def test_a_name_that_leads_elsewhere_after_its_check_is_not_followed(
    handler, web, face, expected, rebound
):
    port = web.rpartition(":")[2]
    assert_same(handler({"inputs": f"http://photos.example:{port}/named"}), expected)
    assert rebound == PUBLIC
    with pytest.raises(ValueError, match=r"photos\.example is not on the public network"):
        handler({"inputs": f"http://photos.example:{port}/named"})
    # A redirect is checked as the first address is.
    with pytest.raises(ValueError, match=r"others\.example is not on the public network"):
        handler({"inputs": f"http://others.example:{port}/moved"})
    assert rebound == PUBLIC * 2


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
def test_a_certificate_is_checked_by_the_name_and_not_by_the_address(
    handler, server, face, expected, rebound, tmp_path, monkeypatch
):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=photos.example"
    make += f" -addext subjectAltName=DNS:photos.example -keyout {key} -out {certificate}"
    subprocess.run(make.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    port = server.server_address[1]
    assert_same(handler({"inputs": f"https://photos.example:{port}/named"}), expected)
    with pytest.raises(ValueError, match=r"not valid for 'others\.example'"):
        handler({"inputs": f"https://others.example:{port}/face.png"})
    assert rebound == PUBLIC * 2


@pytest.fixture
def haar(monkeypatch):
    """Faces by OpenCV's cascade, which needs no file."""
    monkeypatch.setattr(detection, "find_detector_file", lambda: None)


@pytest.mark.filterwarnings("ignore:cannot get")
@pytest.mark.parametrize("shortest_edge", [112, 128])
def test_faces_are_found_aligned_and_told_like_the_predictor_does(haar, tmp_path, shortest_edge):
    file = check_out(Path(default_checkpoint()), tmp_path) / "preprocessor_config.json"
    size = {"size": {"shortest_edge": shortest_edge}}  # of whole images; aligned faces are cut
    file.write_text(json.dumps(json.loads(file.read_text()) | size))
    _, handler = load_handler(tmp_path)
    (face,) = serve(handler, encoded(HOPPER.read_bytes(), detect_faces=True))[1]
    (expected,) = AttributePredictor.from_pretrained(tmp_path)(HOPPER)
    assert list(face["box"].values()) == [round(x) for x in expected["box"]]
    assert face["score"] == pytest.approx(expected["score"], abs=1e-4)
    scores = {entry["label"]: entry["score"] for entry in face["labels"]}
    assert scores == pytest.approx(expected["attributes"], abs=1e-4)


@pytest.mark.filterwarnings("ignore:cannot get")
def test_a_photo_without_a_face_gives_an_empty_list(haar, handler, face):
    handler._detector = None
    assert serve(handler, encoded(face, detect_faces=True)) == (200, [])


ALONE = """
import importlib.util, json, sys
assert importlib.util.find_spec("label2label") is None
folder, photo = sys.argv[1:]
sys.path.insert(0, folder)  # as the toolkit does
spec = importlib.util.spec_from_file_location("handler", folder + "/handler.py")
module = importlib.util.module_from_spec(spec)
sys.modules["handler"] = module
spec.loader.exec_module(module)
handler = module.EndpointHandler(folder)
data = open(photo, "rb").read()
faces = handler({"inputs": data, "parameters": {"detect_faces": True}})
print(json.dumps({"whole": handler({"inputs": data}), "faces": faces}))
import label2label.faces.detection
assert label2label.faces.detection.__file__.startswith(folder)
"""


@pytest.mark.slow
def test_it_runs_where_the_package_is_not_installed(handler, checkout, tmp_path):
    site = str(Path(np.__file__).parents[1])
    if (Path(site) / "label2label").exists():
        pytest.skip("the package is installed beside its dependencies, so cannot be left out")
    done = subprocess.run(
        [sys.executable, "-S", "-c", ALONE, str(checkout), str(HOPPER)],
        capture_output=True,
        text=True,
        # -S leaves out what an editable installation puts on the path.
        env={
            **os.environ,
            "PYTHONPATH": site,
            "HF_HOME": str(tmp_path),
            "HF_ENDPOINT": "http://127.0.0.1:9",
        },
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert_same(result["whole"], handler({"inputs": HOPPER.read_bytes()}))
    assert len(result["faces"]) == 1
    assert len(result["faces"][0]["labels"]) == len(ATTRIBUTES)
