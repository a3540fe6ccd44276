"""The terminal: pieces that make up the text, a view in which they appear in place, and a conversation."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.text import Text

from dllm_lightning.data.asked import Question
from dllm_lightning.data.gaps import gapped
from dllm_lightning.data.infill import Infill
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, UniformDiffusion
from dllm_lightning.sampler import Ancestral, Fixed, Plateau, Proposal, Psi, Refine, Reveal
from dllm_lightning.speaker import Speaker, TooLong
from dllm_lightning.terminal import Chat, LiveOutput, LiveView, Pieces, PlainOutput
from dllm_lightning.terminal.live import (
    BEHIND,
    CORRECTED,
    CORRECTING,
    DOUBTFUL,
    ENDED,
    FAINT,
    GIVEN,
    HIDDEN,
    LIKELY,
    SURE,
    style,
)
from dllm_lightning.terminal.output import caption, harmless
from dllm_lightning.types import Step, Vocab
from tests.parrot import TEXT, Parrot, parrot, speaker

ASKED = Question([{"role": "user", "content": "What is the opposite of [bold]hot[/bold]?"}])


def screen(terminal: bool = True, **options: Any) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=80,
        height=24,
        markup=False,
        emoji=False,
        highlight=False,
        **options,
    )


def infill(source: str) -> Infill:
    return Infill(source, gapped(source))


def spans(text: Text) -> list[Text]:
    """The pieces that were put together."""
    return [Text(text.plain[span.start : span.end], style=span.style) for span in text.spans]


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def frames(text: str = TEXT, questions: int = 1, length: int = 12) -> list[str]:
    """What the view shows at each step."""
    talker, console = speaker(parrot(length, text), length), screen(color_system=None)
    process, seen = talker.denoiser.process, []
    view = LiveView(console, Pieces(talker.template), process, ["What?"] * questions, "Reveal")

    def watch(canvas: Any, step: Step) -> None:
        with console.capture() as captured:
            console.print(view.frame(canvas, step))
        seen.append(captured.get())

    talker.answers([ASKED] * questions, watch)
    return seen


# pieces


def test_pieces_put_side_by_side_are_the_text() -> None:
    template = parrot().template
    for text in (TEXT, "zebra, yes.", "1, 2 and 34.", "the answer: it 's zzz!"):
        (ids,) = template.plain.encode([text])
        assert "".join(piece or "" for piece in Pieces(template)(ids)).strip() == template.plain.decode(ids)


def test_a_piece_is_shown_as_a_part_of_its_word_before_the_rest_is_known() -> None:
    template = parrot().template
    (ids,) = template.plain.encode(["zebra"])
    hidden = template.tokenizer.mask_token_id
    assert Pieces(template)([hidden, ids[1], hidden, ids[3]]) == [None, "e", None, "r"]


def test_control_tokens_have_no_piece() -> None:
    template = parrot().template
    assert Pieces(template)([template.end_id, template.tokenizer.pad_token_id]) == ["", ""]


def test_a_character_of_several_tokens_is_shown_when_it_is_complete(data_root: Any) -> None:
    from transformers import AutoTokenizer

    from dllm_lightning.data import Turns

    template = Turns(AutoTokenizer.from_pretrained(data_root / "tokenizers" / "modernbert-base"))
    text = "Paris \N{SPARKLES}\N{SPARKLES}, café:\n日本語 \N{FAMILY}!"
    (ids,) = template.plain.encode([text])
    pieces, hidden = Pieces(template), template.tokenizer.mask_token_id
    assert "".join(piece or "" for piece in pieces(ids)).strip() == text
    for place in range(len(ids)):  # however it is interrupted, the rest can be shown
        shown = pieces([hidden if place == i else token for i, token in enumerate(ids)])
        assert shown[place] is None and shown.count(None) == 1


# the view


def test_tokens_appear_in_place_until_the_text_is_there() -> None:
    seen = frames()
    assert len(seen) == 12
    assert seen[0].count(HIDDEN.strip()) == 11 and HIDDEN.strip() not in seen[-1]
    assert TEXT.removesuffix(".") in seen[-1]
    assert [f"step {i + 1}  {i + 1}/12 tokens" in frame for i, frame in enumerate(seen)] == [True] * 12


def test_every_frame_keeps_what_the_one_before_it_showed() -> None:
    hidden = [frame.count(HIDDEN.strip()) for frame in frames()]
    assert hidden == sorted(hidden, reverse=True)


def test_a_text_with_gaps_is_shown_whole_and_its_gaps_stand_out() -> None:
    talker, looks = speaker(parrot(8)), []
    asked = [infill("The [[2]] hot is [[1]]."), infill("[[1]] opposite of hot is cold.")]
    view = LiveView(screen(), Pieces(talker.template), talker.denoiser.process, ["", ""], "", given=[1, 0])

    def watch(canvas: Any, step: Step) -> None:
        *panels, _, _ = *view.frame(canvas, step).renderables, None  # type: ignore[union-attr, attr-defined]
        looks.append([[(word.plain.strip(), word.style) for word in spans(panel.renderable)] for panel in panels])

    assert [each.given(talker.template) for each in asked] == [1, 0]
    talker.answers(asked, watch)
    (first, second), (last, _) = looks[0], looks[-1]
    assert [word for word, _ in first] == ["the", "opposite", HIDDEN.strip(), "hot", "is", HIDDEN.strip(), "."]
    assert [look == GIVEN for _, look in first] == [True, False, False, True, True, False, True]
    assert [look == FAINT for _, look in first] == [False, False, True, False, False, True, False]
    assert [word for word, _ in second][:3] == ["the", "opposite", "of"]
    assert [word for word, _ in last] == ["the", "opposite", "of", "hot", "is", "cold", "."]
    assert [look == GIVEN for _, look in last] == [look == GIVEN for _, look in first]


def test_an_end_in_a_gap_hides_what_is_behind_it_in_that_gap_alone() -> None:
    talker = speaker(parrot())
    view = LiveView(screen(), Pieces(talker.template), talker.denoiser.process, ["What?"], "")
    end, word = talker.template.end_id, talker.template.plain.encode(["cold"])[0][0]
    text = view._text([word, end, word, word], [FAINT] * 4, [True] * 4, [True, False, False, True])
    assert text.plain == f"cold{ENDED}{BEHIND} cold"


def test_line_breaks_do_not_break_the_picture_and_brackets_are_no_markup() -> None:
    console = screen(color_system=None)
    talker = speaker(parrot())
    view = LiveView(console, Pieces(talker.template), talker.denoiser.process, ["[red]a\nb\x1b[2J[/red]"], "")

    def watch(canvas: Any, step: Step) -> None:
        console.print(view.frame(canvas, step))

    talker.answers([ASKED], watch)
    assert "[red]a⏎b�[2J[/red]" in printed(console) and "\x1b" not in printed(console)


class Wavering(Parrot):
    """Says `cold` where it should say `hot`, until half of the noise is gone."""

    def __init__(self, template: Any, length: int) -> None:
        super().__init__(template, length)
        (wrong,) = template.plain.encode([TEXT.replace("hot", "cold")])
        self.right, self.wrong = self.ids, torch.tensor((wrong + [template.end_id] * length)[:length])

    def forward(self, ids: Any, t: Any, segment: Any, at: Any, score: Any = None) -> Any:
        self.ids = self.wrong if t.max() > 0.5 else self.right
        return super().forward(ids, t, segment, at, score)


def wavering(kind: Any, sampler: Any) -> Speaker:
    template = parrot().template
    vocab = Vocab.of(template.tokenizer, end_id=template.end_id)
    denoiser = NetworkDenoiser(Wavering(template, 12), kind(vocab, LogLinear()))  # type: ignore[arg-type]
    return Speaker(denoiser, template, sampler, 12, torch.Generator().manual_seed(0))


def test_random_tokens_are_faint_until_they_are_written_and_corrections_are_underlined() -> None:
    talker, console = wavering(UniformDiffusion, Refine(tokens_per_step=1)), screen()
    view = LiveView(console, Pieces(talker.template), talker.denoiser.process, ["What?"], "Refine")
    looks: list[list[tuple[str, Any]]] = []

    def watch(canvas: Any, step: Step) -> None:
        panel, status = view.frame(canvas, step).renderables  # type: ignore[union-attr, attr-defined]
        text = panel.renderable
        looks.append([(text.plain[span.start : span.end].strip(), span.style) for span in text.spans])
        told.append("".join(segment.text for segment in console.render(status)))

    told: list[str] = []
    (answer,) = talker.answers([ASKED], watch)
    assert answer.text == TEXT and answer.corrections == 1
    assert sum(style == FAINT for _, style in looks[0]) == 11 and "1/12 tokens" in told[0]
    corrected = [[word for word, style in frame if style.underline] for frame in looks]
    first = corrected.index(["hot"])
    assert corrected == [[]] * first + [["hot"]] * (len(looks) - first)
    assert ("hot", CORRECTING) in looks[first] and ("cold", CORRECTING) not in looks[first]
    assert "correction" not in told[first - 1] and all("1 correction " in line for line in told[first:])
    assert "12/12 tokens" in told[-1] and not any(style == FAINT for word, style in looks[-1] if word.isalpha())


def test_a_random_end_does_not_hide_what_stands_behind_it() -> None:
    talker = wavering(UniformDiffusion, Refine())
    view = LiveView(screen(), Pieces(talker.template), talker.denoiser.process, ["What?"], "")
    end, word = talker.template.end_id, talker.template.plain.encode(["cold"])[0][0]
    looks = [style(0.9, 5)] * 3
    assert "cold" in view._text([word, end, word], looks, [True, False, True]).plain[5:]
    assert "cold" not in view._text([word, end, word], looks, [True, True, True]).plain[5:]


def test_a_masked_text_that_is_taken_back_counts_its_corrections_too() -> None:
    sampler = Psi(24, Proposal(), profile=Plateau(0.3, 0.6, level=0.7), middle=Fixed(0.2))
    console = screen(terminal=False, color_system=None)
    answers = LiveOutput(console).answers(wavering(MaskedDiffusion, sampler), [ASKED] * 6)
    assert all(answer.text == TEXT and answer.corrections in (0, 1) for answer in answers)
    made = sum(answer.corrections for answer in answers)
    assert 0 < made < 6 and printed(console).count("7 tokens in 24 steps, 1 correction, ") == made


def test_more_rows_than_the_terminal_is_high_are_counted() -> None:
    frame = frames(questions=20)[0]
    assert frame.count("What?") == 7 and "and 13 more" in frame
    assert len(frame.splitlines()) <= 24


@pytest.mark.parametrize(
    ("confidence", "age", "colour"),
    [(0.1, 0, DOUBTFUL), (0.5, 1, LIKELY), (0.9, 2, SURE), (0.1, 3, None), (0.9, 50, None)],
)
def test_a_token_has_the_colour_of_its_confidence_until_it_has_settled(
    confidence: float, age: int, colour: Any
) -> None:
    assert style(confidence, age).color == (colour.color if colour else None)
    assert bool(style(confidence, age).bold) == (age == 0)


def test_a_correction_has_a_colour_of_its_own_while_it_is_new_and_stays_underlined() -> None:
    assert style(0.9, 0, corrected=True) == CORRECTING and style(0.9, 3, corrected=True) == CORRECTED
    assert style(0.9, 1, corrected=True).color == SURE.color and style(0.9, 1, corrected=True).underline


def test_live_output_ends_with_the_question_the_answer_and_its_cost() -> None:
    console = screen()
    LiveOutput(console).answers(speaker(parrot()), [ASKED])
    console_text = screen(color_system=None, terminal=False)
    LiveOutput(console_text).answers(speaker(parrot()), [ASKED])
    assert printed(console_text).startswith(f"❯ {ASKED.title}\n{TEXT}\n7 tokens in 12 steps, ")
    assert "\x1b[?25h" in printed(console)  # the cursor is back


def test_a_step_stays_on_the_screen_as_long_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    LiveOutput(screen(), pause=60.0).answers(speaker(parrot()), [ASKED])
    assert len(slept) == 12 and all(50 < seconds <= 60 for seconds in slept)


def test_a_text_cannot_steer_the_terminal() -> None:
    assert harmless("a\x1b[31mb\x07\n\tc\r\x9b") == "a[31mb\n\tc"


def test_a_caption_names_what_was_chosen() -> None:
    assert [caption(s) for s in (Reveal(), Reveal(steps=8), Ancestral(9, Proposal(0.5)))] == [
        "Reveal",
        "Reveal(steps=8)",
        "Ancestral(steps=9, proposal=Proposal(temperature=0.5))",
    ]
    assert caption(Psi(middle=Fixed(0.1))) == "Psi(middle=Fixed(eta=0.1))"


# a conversation

Talk = Callable[..., str]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Talk:
    """What a chat prints while these lines are typed; then the keyboard is gone."""

    def run(talker: Speaker, *lines: str | type[BaseException], longest: int | None = None) -> str:
        typed, console = iter(lines), screen(terminal=False)

        def read(sign: str) -> str:
            line = next(typed, EOFError)
            if isinstance(line, str):
                return line
            raise line

        monkeypatch.setattr("builtins.input", read)
        Chat(console, talker, PlainOutput(console.file), longest).run()  # type: ignore[arg-type]
        return printed(console)

    return run


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The conversations that the speaker was given, as their contents."""
    given: list[list[str]] = []
    answers = Speaker.answers

    def noted(self: Speaker, asked: Any, watch: Any = None) -> Any:
        given.append([message["content"] for message in asked[0].messages])
        return answers(self, asked, watch)

    monkeypatch.setattr(Speaker, "answers", noted)
    return given


def test_a_chat_remembers_what_was_said(talk: Talk, questions: list[list[str]]) -> None:
    told = talk(speaker(parrot()), "one?", "", "two?", "/quit", "never")
    assert questions == [["one?"], ["one?", TEXT, "two?"]]
    assert told.count(TEXT) == 2 and told.endswith("Goodbye.\n")


def test_a_chat_forgets_when_told_to(talk: Talk, questions: list[list[str]]) -> None:
    assert "Forgotten." in talk(speaker(parrot()), "one?", "/reset", "two?")
    assert questions == [["one?"], ["two?"]]


def test_a_chat_forgets_the_oldest_when_there_is_no_more_room(talk: Talk, questions: list[list[str]]) -> None:
    told = talk(speaker(parrot()), "one?", "two?", "three?", longest=40)
    assert questions == [["one?"], ["one?", TEXT, "two?"], ["two?", TEXT, "three?"]]
    assert "Forgot the oldest exchange to make room." in told


@pytest.mark.parametrize("leave", [EOFError, KeyboardInterrupt])
def test_ctrl_d_and_ctrl_c_leave_politely(talk: Talk, leave: type[BaseException]) -> None:
    assert talk(speaker(parrot()), leave, "never").endswith("\nGoodbye.\n")


def test_ctrl_c_while_an_answer_is_written_stops_that_answer_only(
    talk: Talk, questions: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = iter([True])
    walk = Reveal.walk

    def interrupt(self: Reveal, *parts: Any) -> Any:
        if next(interrupted, False):
            raise KeyboardInterrupt
        return walk(self, *parts)

    monkeypatch.setattr(Reveal, "walk", interrupt)
    told = talk(speaker(parrot()), "one?", "two?")
    assert questions == [["one?"], ["two?"]] and "Stopped; the question is forgotten." in told and TEXT in told


def test_commands_are_explained_and_misspelt_ones_corrected(talk: Talk) -> None:
    told = talk(speaker(parrot()), "/help", "/rest", "/zzzzz")
    assert "/reset  forget the conversation" in told
    assert "There is no /rest. Did you mean /reset?" in told and "There is no /zzzzz. /help lists the commands." in told


def test_a_question_that_is_too_long_is_told_and_the_chat_goes_on(talk: Talk, questions: list[list[str]]) -> None:
    told = talk(speaker(parrot(), positions=20), "a b c d e f g h i j k l", "one?")
    assert "network reads 20 at most" in told and told.count(TEXT) == 1
    assert questions[1] == ["one?"]


def test_an_answer_without_words_is_shown_and_not_remembered(talk: Talk, questions: list[list[str]]) -> None:
    talk(speaker(parrot(text="")), "one?", "two?")
    assert questions == [["one?"], ["two?"]]


def test_a_row_that_the_network_cannot_read_is_refused() -> None:
    with pytest.raises(TooLong, match="length=12 slots for its answer make"):
        speaker(parrot(), positions=10).answers([ASKED])
