"""Reading a page of results back, and what the tests of reports and measurements are made of."""

import html.parser
import json

import numpy as np
import soundfile

from indep_jax.codec.model import Encoded

RATE = 16_000


class ScalarCodec:
    """Residual scalar quantization of the means of 4 samples: a Tokenizer in ten lines."""

    sample_rate, channels, codebooks, codebook_size, hop = RATE, 1, 3, 8, 4
    frame_rate = RATE / hop
    code_vectors = None

    def __init__(self, label="scalar", config=()):
        self.label, self.config = label, dict(config)
        self.steps = [2 / 8, 2 / 64, 2 / 512]

    def encode(self, wave):
        residual = np.asarray(wave)[..., 0].reshape(len(wave), -1, self.hop).mean(-1)
        codes = []
        for step in self.steps:
            code = np.clip(np.round(residual / step), -4, 3).astype(np.int32)
            residual = residual - step * code
            codes.append(code + 4)
        return Encoded(np.stack(codes, -1), None, wave.shape[1])

    def encode_long(self, read, length):
        encoded = self.encode(read(0, length - length % self.hop)[None])
        yield encoded._replace(codes=encoded.codes[0], length=length)

    def decode(self, encoded):
        value = sum(step * (encoded.codes[..., k] - 4) for k, step in enumerate(self.steps))
        return np.repeat(value, self.hop, axis=1)[:, : encoded.length, None]


class Page(html.parser.HTMLParser):
    """What is in a page: tags with their attributes, and text."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self, content):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(content)
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(path):
    """A whole, self-contained, accessible page."""
    content = path.read_text()
    page = Page(content)
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith("data:")
    style = content.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("title")) == len(page.all("h1")) == 1
    assert all(image["alt"] for image in page.all("img"))
    assert all(player["aria-label"] for player in page.all("audio"))
    assert not list(path.parent.rglob("*.tmp"))
    return page


def music(seconds, seed, rate=RATE):
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(
        np.sin(2 * np.pi * f * time + rng.uniform(0, 6)) * np.exp(-((time * b) % 1) * 3)
        for f, b in zip(rng.uniform(100, 1500, 5), rng.uniform(1, 4, 5))
    )
    return (0.15 * wave + 0.003 * rng.standard_normal(len(time)))[:, None].astype(np.float32)


def write_music(path):
    """Write six files and a manifest into a folder, one of them with a name to escape."""
    path.mkdir()
    names = [f"{n}.wav" for n in range(5)] + ["<b>&'\"x.wav"]
    for n, name in enumerate(names):
        soundfile.write(path / name, music(1.2 + 0.1 * n, n), RATE)
    entries = [dict(path=n, split="train" if n == "0.wav" else "test") for n in names]
    (path / "manifest.json").write_text(json.dumps(dict(files=entries)))


def codes(seed, files=6, copy=0.3):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(files):
        first, others = rng.integers(0, 8, (200, 1)), rng.integers(0, 8, (200, 2))
        others = np.where(rng.random((200, 2)) < copy, first, others)
        made.append(np.concatenate([first, others], axis=1))
    return made
