"""hub=user/name: the folder goes to the hub as well, and stays whole when the hub does not take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.conf.configurations import Terminal
from tests.publish.models import FILES, MODERN, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), *MODERN)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


class Hub:
    """Stands in for the hub's client, and keeps what it was told."""

    told: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    fails = False

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self.told.append((repo_id, options))
        if self.fails:
            raise ConnectionError("You have no right to me/it\nRequest id: 1")
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> None:
        self.told.append((repo_id, {"files": {file.name for file in folder_path.iterdir()}} | options))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.setattr(Hub, "told", [])
    return Hub


def test_the_folder_is_pushed_where_it_is_asked_for(run: Path, terminal: Terminal, hub: type[Hub]) -> None:
    ran = terminal(f"run={run}", "out=model", "hub=me/it", "private=true", entry="export")
    assert ran.code == 0 and ran.out.endswith("Pushed to https://hub/me/it\n")
    (made, options), (filled, upload) = hub.told
    assert made == filled == "me/it" and options["private"] is True and options["exist_ok"] is True
    assert upload["files"] == FILES
    assert 'name = "me/it"' in (terminal.folder / "model" / "README.md").read_text()


def test_a_push_that_fails_is_one_sentence_and_keeps_the_folder(
    run: Path, terminal: Terminal, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "fails", True)
    ran = terminal(f"run={run}", "out=model", "hub=me/it", entry="export")
    out = terminal.folder / "model"
    said = f"hub='me/it' did not take the model (You have no right to me/it). It is whole in '{out}': try again with"
    assert ran.code == 2 and ran.err == f"{said} `hf upload me/it {out}`.\n"
    assert {file.name for file in out.iterdir()} == FILES


def test_without_a_network_a_push_is_one_sentence(
    run: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real client, told that there is no network."""
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    ran = terminal(f"run={run}", "out=model", "hub=me/it", entry="export")
    assert ran.code == 2 and ran.err.startswith("hub='me/it' did not take the model (") and ran.err.count("\n") == 1
