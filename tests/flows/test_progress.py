import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import ArtifactSort

from flows.progress import Progress


def test_lines_tell_how_far_it_is_where_there_is_no_terminal(capsys) -> None:
    with Progress("read", 8, "blocks") as progress:
        for _ in range(8):
            progress.advance(note="fast")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  read: 1/8 blocks fast"
    assert lines[-1] == "  read: 8/8 blocks fast"
    assert len(lines) == 5


def test_a_total_may_be_known_only_later(capsys) -> None:
    with Progress("render", 0, "files") as progress:
        progress.show(5, 10)
    assert capsys.readouterr().err == "  render: 5/10 files\n"


def test_a_run_s_page_shows_it_and_a_failed_stage_stays_unfinished(prefect_api: str) -> None:
    @flow
    def stage(title: str, fails: bool) -> None:
        with Progress(title, 4) as progress:
            progress.advance(2)
            if fails:
                raise ValueError("disk full")

    stage("whole", fails=False)
    with pytest.raises(ValueError, match="disk full"):
        stage("broken", fails=True)
    # A page of them: other tests have made some on the same server.
    artifacts = get_client(sync_client=True).read_artifacts(sort=ArtifactSort.CREATED_DESC)
    shown = {a.description: float(a.data) for a in artifacts if a.type == "progress"}
    assert shown["whole"] == 100.0
    assert shown["broken"] < 100.0


def test_who_deletes_a_progress_artifact_ends_no_run(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.progress.ARTIFACT_SECONDS", 0.0)

    @flow
    def stage() -> int:
        with Progress("read", 3) as shown:
            artifact = shown._artifact
            assert artifact is not None
            with get_client(sync_client=True) as client:
                client.delete_artifact(artifact)
            for _ in range(3):
                shown.advance()
            return shown.done

    assert stage() == 3
