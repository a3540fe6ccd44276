"""A conversation at the keyboard."""

from __future__ import annotations

import contextlib
import difflib

from rich.console import Console
from rich.text import Text

from dllm_lightning.data.asked import Question
from dllm_lightning.data.messages import BadRow
from dllm_lightning.speaker import Speaker, TooLong
from dllm_lightning.terminal.output import Output

COMMANDS = {"/reset": "forget the conversation", "/help": "show this", "/quit": "leave (so do Ctrl-C and Ctrl-D)"}


class Chat:
    """Reads a question, shows its answer, remembers both: the last `longest` tokens, or everything."""

    def __init__(self, console: Console, speaker: Speaker, output: Output, longest: int | None = None) -> None:
        self.console, self.speaker, self.output, self.longest = console, speaker, output, longest
        self.history: list[dict[str, str]] = []

    def run(self) -> None:
        """Until the user leaves. Ctrl-C while an answer is being written stops that answer only."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, from here on input() edits lines and recalls earlier ones
        self._say("Ask something. /help lists the commands.")
        while True:
            try:
                line = input("❯ ").strip()
            except (EOFError, KeyboardInterrupt):
                self.console.print()
                break
            if line == "/quit":
                break
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._turn(line)
        self._say("Goodbye.")

    def _turn(self, question: str) -> None:
        self.history.append({"role": "user", "content": question})
        try:
            self._fit()
            (answer,) = self.output.answers(self.speaker, [Question(self.history)])
        except KeyboardInterrupt:
            self.history.pop()
            self._say("Stopped; the question is forgotten.")
        except (BadRow, TooLong) as error:
            self.history.pop()
            self._say(str(error))
        else:
            # A template has no place for an answer without words: that exchange cannot be remembered.
            if answer.text.strip():
                self.history.append({"role": "assistant", "content": answer.text})
            else:
                self.history.pop()

    def _fit(self) -> None:
        """Forgets the oldest exchanges that would not fit with the rest."""
        forgotten = 0
        while self.longest is not None and len(self.history) > 1 and self._tokens() > self.longest:
            del self.history[:2]
            forgotten += 1
        if forgotten:
            self._say(
                f"Forgot the {'oldest exchange' if forgotten == 1 else f'{forgotten} oldest exchanges'} to make room."
            )

    def _tokens(self) -> int:
        return len(self.speaker.template.prompt(self.history, self.speaker.length).ids)

    def _command(self, line: str) -> None:
        if line == "/reset":
            self.history.clear()
            self._say("Forgotten.")
        elif line == "/help":
            self._say("\n".join(f"{command:8}{meaning}" for command, meaning in COMMANDS.items()))
        else:
            close = difflib.get_close_matches(line, COMMANDS, n=1)
            self._say(f"There is no {line}. " + (f"Did you mean {close[0]}?" if close else "/help lists the commands."))

    def _say(self, text: str) -> None:
        self.console.print(Text(text, style="bright_black"))
