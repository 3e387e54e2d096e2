"""The widget, driven as a visitor drives it: typing and pressing, from Python."""

import base64
import io
import re
import threading
from html import unescape

import numpy as np
import pytest
from PIL import Image

from t2ilib.data import toy
from t2ilib.errors import InputError
from t2ilib.explore import Explorer, Request, Studio, markup
from t2ilib.explore.composer import ANY
from t2ilib.explore.looking import Neighbour
from t2ilib.explore.receipts import Receipt, png, read_receipt
from t2ilib.explore.worker import Worker
from t2ilib.files import WEIGHTS

PATIENCE = 240  # seconds, on a busy machine
RED = "a red bird with black wings."


@pytest.fixture(scope="module")
def shared():
    return Studio("cpu")


@pytest.fixture
def explorer(shared):
    return Explorer(RED, ["gancls_toy"], shared)


def press(explorer, button):
    button.click()
    assert explorer.worker.wait(PATIENCE)


def said(explorer):
    return unescape(re.sub(r"<[^>]+>", "", explorer.status.value))


def image_of(content):
    """The picture in a piece of HTML."""
    (found,) = re.findall(r'src="data:image/png;base64,([^"]+)"', content)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found))))


def shown(explorer):
    """The pictures of every row, as arrays (count, H, W, 3)."""
    rows = explorer.gallery.children[1::2]
    return [np.stack([image_of(cell.picture.value) for cell in row.children]) for row in rows]


def failed(explorer):
    return 'role="alert"' in explorer.status.value


def test_a_caption_becomes_pictures_and_numbers(explorer, shared):
    assert explorer.gallery.children == () and "Press Generate" in said(explorer)
    press(explorer, explorer.generate)
    expected = shared.paint(Request(RED, "gancls_toy", count=4)).pictures
    assert np.array_equal(shown(explorer)[0], expected)
    assert re.fullmatch(r"4 pictures in \d+\.\d\d s\.", said(explorer)) and not failed(explorer)
    heading = re.sub(r"<[^>]+>", "", explorer.gallery.children[0].value)
    assert re.search(r"gancls_toy CLIP score \d+\.\d, \d of 8 mentioned attributes, diversity \d\.\d\d", heading)


def test_seed_count_and_truncation_are_obeyed(explorer, shared):
    explorer.count.value, explorer.seed.value = 2, 7
    press(explorer, explorer.generate)
    plain = shown(explorer)[0]
    assert np.array_equal(plain, shared.paint(Request(RED, "gancls_toy", 7, 2)).pictures)
    assert explorer.truncation.disabled
    explorer.cut.value = True  # paints at once
    assert explorer.worker.wait(PATIENCE) and not explorer.truncation.disabled
    explorer.truncation.value = 0.3
    assert explorer.worker.wait(PATIENCE)
    assert np.array_equal(shown(explorer)[0], shared.paint(Request(RED, "gancls_toy", 7, 2, 0.3)).pictures)
    press(explorer, explorer.next)
    assert explorer.seed.value == 8
    assert np.array_equal(shown(explorer)[0], shared.paint(Request(RED, "gancls_toy", 8, 2, 0.3)).pictures)


def test_several_systems_paint_the_same_caption_and_fewer_again(explorer, shared):
    explorer.systems.value = ("gancls_toy", "wgan_toy")
    press(explorer, explorer.generate)
    both = shown(explorer)
    for own, name in zip(both, ("gancls_toy", "wgan_toy"), strict=True):
        assert np.array_equal(own, shared.paint(Request(RED, name)).pictures)
    cells = explorer.gallery.children[1].children
    explorer.systems.value, explorer.count.value = ("wgan_toy",), 3
    press(explorer, explorer.generate)
    assert np.array_equal(shown(explorer)[0], shared.paint(Request(RED, "wgan_toy", count=3)).pictures)
    assert len(shown(explorer)) == 1 and explorer.gallery.children[1].children == cells[:3]  # no widget made anew


def test_tokens_are_live_and_unknown_words_are_marked(explorer):
    press(explorer, explorer.generate)  # the encoder is there now
    explorer.caption.value = "a Red <b>xylophone</b> bird"
    words = re.findall(r'<span class="t2i-word([^"]*)"[^>]*>([^<]*)</span>', explorer.tokens.value)
    assert [text for _, text in words] == ["a", "red", "b (unknown)", "xylophone (unknown)", "b (unknown)", "bird"]
    assert [bool(kind) for kind, _ in words] == [False, False, True, True, True, False]
    assert "<b>" not in explorer.tokens.value
    explorer.caption.value = ""
    assert "no words" in explorer.tokens.value


def test_menus_write_what_is_chosen(explorer):
    before = explorer.caption.value
    assert set(explorer.composer.menus) == set(toy.ATTRIBUTES)
    explorer.composer.otherwise.click()
    assert explorer.caption.value == before  # nothing is chosen
    explorer.composer.menus["wing"].value = "blue"
    assert toy.parse(explorer.caption.value) == {"wing": "blue"}
    explorer.composer.menus["perch"].value = "rock"
    captions = set()
    for _ in range(12):
        explorer.composer.otherwise.click()
        captions.add(explorer.caption.value)
        assert toy.parse(explorer.caption.value) == {"wing": "blue", "perch": "rock"}
    assert len(captions) > 2
    explorer.composer.menus["wing"].value = ANY
    assert toy.parse(explorer.caption.value) == {"perch": "rock"}


def test_random_captions_differ_and_can_be_read(explorer):
    captions = set()
    for _ in range(5):
        explorer.random.click()
        captions.add(explorer.caption.value)
        assert toy.parse(explorer.caption.value)
    assert len(captions) > 1


def test_one_word_changed_stands_below_with_the_same_noise(explorer, shared):
    assert explorer.word.value == "red" and set(explorer.word.options) == {"a", "red", "bird", "with", "black", "wings"}
    assert "blue" in explorer.instead.options
    explorer.instead.value = "blue"
    press(explorer, explorer.change)
    expected = [shared.paint(Request(caption, "gancls_toy")).pictures for caption in (RED, RED.replace("red", "blue"))]
    for own, wanted in zip(shown(explorer), expected, strict=True):
        assert np.array_equal(own, wanted)
    assert "blue for red" in explorer.gallery.children[2].value and explorer.caption.value == RED
    explorer.instead.value = " "
    press(explorer, explorer.change)
    assert failed(explorer) and "choose a word" in said(explorer) and len(shown(explorer)) == 2  # as they were


def test_a_closer_look_tells_and_saves(explorer, shared, tmp_path, monkeypatch):
    eyes = shared.eyes("gancls_toy")
    bird = Neighbour(np.zeros((8, 8, 3), np.uint8), ('a "<bird>"',), 0.5)
    monkeypatch.setattr(eyes, "nearest", lambda pictures: [[bird] * 4])
    press(explorer, explorer.generate)
    explorer.gallery.children[1].children[2].button.click()
    assert explorer.worker.wait(PATIENCE)
    closer, path = explorer.closer, tmp_path / "a.png"
    content = re.search(r'href="data:image/png;base64,([^"]+)" download="([^"]+)"', closer.link.value)
    path.write_bytes(base64.b64decode(content[1]))
    painting = shared.paint(Request(RED, "gancls_toy", count=4))
    assert content[2] == "a-red-bird-with-black-wings_gancls_toy_0_2.png" and f'alt="{RED}"' in closer.picture.value
    assert read_receipt(path) == painting.receipt(2)
    for picture in (np.asarray(Image.open(path)), image_of(closer.picture.value)):
        assert np.array_equal(picture, painting.pictures[2])
    score, verdicts = eyes.scores(painting.pictures[2:3], RED)[0], eyes.verdicts(painting.pictures[2:3], RED)[0]
    assert closer.about.value == markup.about(painting.receipt(2), score, "toy-clip-resnet", verdicts)
    assert closer.near.value.count("<img") == 4
    assert "&lt;bird&gt;" in closer.near.value and "<bird>" not in closer.near.value


def test_a_closer_look_that_fails_says_so_where_it_is(explorer, shared, monkeypatch):
    monkeypatch.setattr(
        shared.eyes("gancls_toy"), "nearest", lambda pictures: (_ for _ in ()).throw(InputError("gone"))
    )
    press(explorer, explorer.generate)
    explorer.gallery.children[1].children[0].button.click()
    assert explorer.worker.wait(PATIENCE)
    assert 'role="alert"' in explorer.closer.near.value and "gone" in explorer.closer.near.value
    assert "CLIP score" in explorer.closer.about.value and not failed(explorer)


def test_a_look_at_another_picture_is_not_told_of_the_first(explorer, shared, monkeypatch):
    press(explorer, explorer.generate)
    eyes, closer = shared.eyes("gancls_toy"), explorer.closer
    scores = eyes.scores

    def slow(pictures, caption):
        closer.show(explorer.shown[0], 1)  # meanwhile
        return scores(pictures, caption)

    monkeypatch.setattr(eyes, "scores", slow)
    monkeypatch.setattr(eyes, "nearest", lambda pictures: [[]])
    closer.show(explorer.shown[0], 0)
    closer.judged(explorer.shown[0], 0, shared)
    assert "Looking at it" in closer.about.value and "Looking through" in closer.near.value
    monkeypatch.undo()
    monkeypatch.setattr(shared, "eyes", lambda system: (_ for _ in ()).throw(InputError("gone")))
    closer.judged(explorer.shown[0], 1, shared)
    assert "picture 2 of 4" in closer.about.value and "gone" in closer.near.value


def test_a_way_stands_beside_its_own_captions_alone(explorer):
    explorer.to_caption.value = "a <blue> bird."
    press(explorer, explorer.go)
    assert "a &lt;blue&gt; bird." in explorer.way.value and RED in explorer.way.value
    explorer.to_caption.value = "x" * 20_000
    press(explorer, explorer.go)
    assert failed(explorer) and "<blue>" not in explorer.way.value


def test_two_checkpoints_may_be_asked_for_at_once(explorer, monkeypatch):
    gate, paint = threading.Event(), explorer.studio.paint
    monkeypatch.setattr(explorer.studio, "paint", lambda request: (gate.wait(PATIENCE), paint(request))[1])
    explorer.generate.click()
    for name in ("wgan_toy", "dfgan_toy"):
        explorer.choose(name)
    gate.set()
    assert explorer.worker.wait(PATIENCE) and explorer.systems.value == ("gancls_toy", "wgan_toy", "dfgan_toy")


def test_no_row_of_an_earlier_caption_stays_below_a_new_one(explorer, shared, monkeypatch):
    explorer.systems.value = ("gancls_toy", "wgan_toy")
    press(explorer, explorer.generate)
    rows, paint = [], shared.paint

    def spying(request):
        rows.append([painting.request.caption for painting in explorer.shown])
        return paint(request)

    monkeypatch.setattr(shared, "paint", spying)
    explorer.caption.value = "a blue bird."
    press(explorer, explorer.generate)
    assert rows[1] == ["a blue bird."] and len(explorer.shown) == 2


def test_a_walk_is_a_strip_and_a_moving_picture(explorer, shared):
    explorer.to_caption.value, explorer.to_seed.value = "a blue bird.", 3
    press(explorer, explorer.go)
    strip, moving = (
        Image.open(io.BytesIO(base64.b64decode(content)))
        for content in re.findall(r'src="data:image/\w+;base64,([^"]+)"', explorer.way.value)
    )
    pictures = shared.walk(Request(RED, "gancls_toy"), Request("a blue bird.", "gancls_toy", 3), 8)
    assert strip.size == (8 * 66 - 2, 64) and np.array_equal(np.asarray(strip)[:, -64:], pictures[-1])
    assert moving.format == "GIF" and moving.n_frames == 14 and moving.info["duration"] == 160
    assert "8 pictures" in said(explorer)


def test_a_checkpoint_is_added_and_chosen(explorer, tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes((WEIGHTS / "wgan_toy.safetensors").read_bytes())
    explorer.other.value = f" {path} "
    press(explorer, explorer.add)
    assert explorer.systems.value == ("gancls_toy", str(path)) and str(path) in explorer.systems.options
    press(explorer, explorer.generate)
    assert len(shown(explorer)) == 2 and not failed(explorer)
    assert explorer.shown[1].request.system == str(path)
    for wrong, message in {"": "Name a run folder", str(tmp_path / "none"): "no run, checkpoint or shipped"}.items():
        explorer.other.value = wrong
        press(explorer, explorer.add)
        assert failed(explorer) and message in said(explorer)
    assert explorer.systems.value == ("gancls_toy", str(path))


@pytest.mark.parametrize(
    ("caption", "message", "wrong"),
    [
        ("", "has no word to read", False),
        ("🐦🐦🐦", "has no word to read", False),
        ("blarg " * 1600, "has unknown words alone", False),
        ("red " * 2400, "is cut after", False),
        ("a" * 10_001, "10,001 bytes; the longest that is read has 10,000", True),
        ("<script>alert(1)</script>", "4 pictures", False),
    ],
)
def test_every_caption_gets_an_answer(explorer, caption, message, wrong):
    explorer.caption.value = caption
    press(explorer, explorer.generate)
    assert message in said(explorer) and failed(explorer) == wrong and "<script" not in explorer.status.value
    assert len(explorer.tokens.value) < 20_000 and "<script" not in explorer.tokens.value


def test_the_next_seed_repeats_what_was_asked_last(explorer, shared):
    explorer.instead.value = "blue"
    press(explorer, explorer.change)
    explorer.seed.value = explorer.seed.max
    press(explorer, explorer.next)
    assert explorer.seed.value == 0 and len(shown(explorer)) == 2
    assert np.array_equal(shown(explorer)[1], shared.paint(Request(RED.replace("red", "blue"), "gancls_toy")).pictures)


def test_a_word_that_was_chosen_stays_while_it_is_there(explorer):
    explorer.word.value, explorer.instead.value = "black", "violet"
    explorer.caption.value = "a tiny red bird with black wings"
    assert explorer.word.value == "black" and explorer.instead.value == "violet"
    explorer.caption.value = "a tiny red bird"
    assert explorer.word.value == "tiny" and explorer.instead.value == "large"


def test_drawers_open_and_close(explorer):
    for button, drawer in zip(explorer.drawers, explorer.children[4].children[1:], strict=True):
        for wanted in (True, False):
            button.value = wanted
            assert (drawer.layout.display != "none") == wanted


def test_a_page_for_strangers_opens_no_files(shared):
    def buttons(explorer):
        return {each.description for box in explorer.children if hasattr(box, "children") for each in box.children
                if hasattr(each, "description")}  # fmt: skip

    assert "Add" in buttons(Explorer(RED, ["gancls_toy"], shared))
    closed = Explorer(RED, ["gancls_toy"], shared, others=False)
    assert "Add" not in buttons(closed)
    closed.other.value = "wgan_toy"  # a browser may send what the page does not show
    press(closed, closed.add)
    assert closed.systems.value == ("gancls_toy",) and failed(closed) and "opens no files" in said(closed)


def test_no_system_is_an_answer_too(explorer):
    explorer.systems.value = ()
    for button in (explorer.generate, explorer.change, explorer.go):
        press(explorer, button)
        assert failed(explorer) and "No system is chosen" in said(explorer)


def test_two_visitors_share_models_and_nothing_else(shared):
    one, other = Explorer(RED, ["gancls_toy"], shared), Explorer("a blue bird.", ["gancls_toy"], shared)
    for each in (one, other):
        each.generate.click()
    assert one.worker.wait(PATIENCE) and other.worker.wait(PATIENCE)
    assert one.studio.open("gancls_toy") is other.studio.open("gancls_toy")
    for each, caption in ((one, RED), (other, "a blue bird.")):
        assert np.array_equal(shown(each)[0], shared.paint(Request(caption, "gancls_toy")).pictures)
    one.caption.value = "something else"
    assert other.caption.value == "a blue bird." and "something" not in other.tokens.value


def test_explorers_of_a_process_share_one_studio():
    assert Explorer().studio is Explorer().studio


# ---- the thread that paints --------------------------------------------------------------------------------------


def test_pressing_returns_at_once_and_the_newest_wins(explorer, monkeypatch):
    begun, gate, asked, paint = threading.Event(), threading.Event(), [], explorer.studio.paint

    def slow(request):
        begun.set()
        gate.wait(PATIENCE)
        asked.append(request.caption)
        return paint(request)

    monkeypatch.setattr(explorer.studio, "paint", slow)
    for caption in ("first", "second", "third"):
        explorer.caption.value = caption
        explorer.generate.click()
        assert begun.wait(PATIENCE)
    assert "One moment" in said(explorer) and "third" in explorer.tokens.value  # typing went on
    gate.set()
    assert explorer.worker.wait(PATIENCE) and asked == ["first", "third"]


def test_when_a_later_system_fails_no_older_pictures_stay(explorer, shared, monkeypatch):
    explorer.systems.value = ("gancls_toy", "wgan_toy")
    press(explorer, explorer.generate)
    paint = shared.paint

    def half(request):
        if request.system == "wgan_toy":
            raise InputError("wgan_toy: damaged")
        return paint(request)

    monkeypatch.setattr(shared, "paint", half)
    explorer.caption.value = "a blue bird."
    press(explorer, explorer.generate)
    assert failed(explorer) and "wgan_toy: damaged" in said(explorer)
    (own,) = shown(explorer)
    assert np.array_equal(own, paint(Request("a blue bird.", "gancls_toy")).pictures) and len(explorer.shown) == 1
    assert "CLIP score" in explorer.gallery.children[0].value  # measured all the same


def test_numbers_stand_beside_their_own_pictures_alone(explorer, shared):
    """A painting that was replaced before it was measured is measured for nothing."""
    old, new = (shared.paint(Request(caption, "gancls_toy")) for caption in (RED, "a blue bird."))
    explorer.gallery.show(0, "old", old)
    explorer.gallery.show(0, "new", new)
    before = explorer.gallery.rows[0].heading.value
    explorer.gallery.measured(old, shared.eyes("gancls_toy"))
    assert explorer.gallery.rows[0].heading.value == before
    explorer.gallery.measured(new, shared.eyes("gancls_toy"))
    assert "CLIP score" in explorer.gallery.rows[0].heading.value


def test_typing_while_the_thread_reads_too_leaves_the_last_words(explorer):
    captions = [f"a {word} bird with {other} wings" for word in toy.COLOURS for other in toy.COLOURS]
    threads = [threading.Thread(target=lambda: [explorer._read() for _ in range(60)]) for _ in range(3)]
    for each in threads:
        each.start()
    for caption in captions:
        explorer.caption.value = caption
    for each in threads:
        each.join()
    last = captions[-1].split()
    assert set(explorer.word.options) == set(last) and explorer.word.value in last
    assert [text for text in re.findall(r"<span[^>]*>([^<]*)</span>", explorer.tokens.value)] == last


def test_what_may_come_later_keeps_nobody_waiting():
    gates, begun, done = {"look": threading.Event()}, threading.Event(), []
    worker = Worker(done.append)
    worker.ask("look", lambda: begun.set() or gates["look"].wait(PATIENCE), later=True)
    assert begun.wait(PATIENCE) and not worker.busy
    for kind, later in (("measure", True), ("paint", False), ("walk", False)):
        worker.ask(kind, lambda kind=kind: done.append(kind), later)
    assert worker.wait(PATIENCE, "walk") and done == ["paint", "walk"] and not worker.wait(0.01)
    gates["look"].set()
    assert worker.wait(PATIENCE) and done == ["paint", "walk", "measure"]


def test_pictures_come_while_older_ones_are_judged(explorer, shared, monkeypatch):
    gate, eyes = threading.Event(), shared.eyes("gancls_toy")
    monkeypatch.setattr(shared, "eyes", lambda system: gate.wait(PATIENCE) and eyes)
    explorer.generate.click()
    assert explorer.worker.wait(PATIENCE, "paint")
    first = explorer.shown[0]
    explorer.caption.value = "a blue bird."
    explorer.generate.click()
    assert explorer.worker.wait(PATIENCE, "paint") and explorer.shown[0].request.caption == "a blue bird."
    assert "CLIP score" not in explorer.gallery.children[0].value
    gate.set()
    assert explorer.worker.wait(PATIENCE) and explorer.shown[0] is not first
    pictures = explorer.shown[0].pictures
    assert f"CLIP score {eyes.scores(pictures, 'a blue bird.').mean():.1f}" in explorer.gallery.children[0].value


def test_a_failure_is_one_sentence_and_the_next_job_is_done(caplog):
    told, done = [], []
    worker = Worker(told.append)
    for kind, error in {"a": InputError("the file is damaged"), "b": RuntimeError("secret path")}.items():
        worker.ask(kind, lambda error=error: (_ for _ in ()).throw(error))
    worker.ask("c", lambda: done.append(1))
    assert worker.wait(PATIENCE) and done == [1]
    assert told == [
        "the file is damaged",
        "That went wrong (RuntimeError); the program's log says more. Try another one.",
    ]
    assert "secret path" in caplog.text and "secret path" not in "".join(told)


def test_one_can_wait_for_one_kind_alone():
    gate, done = threading.Event(), []
    worker = Worker(done.append)
    worker.ask("quick", lambda: done.append("quick"))
    worker.ask("slow", lambda: gate.wait(PATIENCE) and done.append("slow"))
    assert worker.wait(PATIENCE, "quick") and done == ["quick"]
    assert not worker.wait(0.01, "slow") and not worker.wait(0.01)
    gate.set()
    assert worker.wait(PATIENCE) and done == ["quick", "slow"]


def test_names_of_saved_pictures_are_harmless():
    receipt = Receipt("../../<x> \"é\" 'RED'", "/tmp/../a b/run", "0" * 64)
    assert markup.file_name(receipt) == "x-red_tmp-..-a-b-run_0_0.png"
    assert markup.file_name(Receipt("", "..", "0" * 64)) == "picture_system_0_0.png"
    link = markup.download(png(np.zeros((2, 2, 3), np.uint8)), '"><script>', "<b>")
    assert "<script" not in link and "<b>" not in link
