"""Several processes are one run: the same losses and weights as alone, one folder, one end.

Each scenario is a function that runs in both of two processes, which are started once:  PYTHONPATH=tests python tests/training/test_distributed.py FOLDER.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from tiny import IMAGES, LABELS, PIXELS, RUN, assert_same, fresh
from ddpm_tutorial import resume, save, train, training
from ddpm_tutorial.training import pace, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several GPUs are in Linux machines")

EIGHT = replace(RUN, steps=8, batch=8, lr=1e-3)
STAGES = [(4, 3), (8, 5)]
TESTS = str(Path(__file__).parents[1])                         # where tiny.py is
LOCAL = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")])),
         "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


# What runs in both processes.

def same_as_alone(folder, rank):
    """A whole run, in micro-batches of 3 + 1, 2 + 2, or none; and how many of the passes were not followed by a meeting."""
    apart = []
    with pytest.MonkeyPatch.context() as patch:
        no_sync = DistributedDataParallel.no_sync
        patch.setattr(DistributedDataParallel, "no_sync", lambda self: (apart.append(micro), no_sync(self))[1])
        for micro in (None, 2, 3):
            state = fresh(replace(EIGHT, micro=micro))
            list(train(state, IMAGES, LABELS))
            save(state, folder / f"same-{micro}-{rank}.safetensors")
    return {"apart": apart}


def dropout(folder, rank):
    """Each process drops other units of its own images; the weights stay the same."""
    state, dropped = fresh(replace(EIGHT, steps=2), dropout=0.5), []
    state.model.net.middle[0].dropout.register_forward_hook(lambda layer, args, out: dropped.append((out == 0).flatten().tolist()))
    list(train(state, IMAGES, LABELS))
    save(state, folder / f"dropout-{rank}.safetensors")
    return {"dropped": dropped}


def stop(folder, rank):
    """Only the second process is asked to stop: between two steps, before the processes meet in one, and after they have met in it."""
    ends = {}
    for when in ("between", "before", "after"):
        state, update = fresh(EIGHT), AveragedModel.update_parameters

        def asked(state=state):
            state.stop = state.stop or (rank == 1 and state.step == 4)

        if when == "before":
            state.model.net.register_forward_pre_hook(lambda net, args, asked=asked: asked())
        with pytest.MonkeyPatch.context() as patch:
            if when == "after":
                patch.setattr(AveragedModel, "update_parameters", lambda self, net, asked=asked, update=update: (asked(), update(self, net)))
            for _ in train(state, IMAGES, LABELS):
                if when == "between":
                    asked()
        ends[when] = state.step, state.stop, len(list(train(state, IMAGES, LABELS)))
    return {"ends": ends}


def terminated(folder, rank):
    """A whole run in a folder, grown in stages; the second process gets SIGTERM in the first stage, then both go on and it gets it again in the second."""
    place = folder / f"run-{rank}"
    if rank == 0:
        place.mkdir()
    state, steps = fresh(EIGHT), []
    for at in (1, 5, None):
        def forward(net, args, at=at, state=state):
            if rank == 1 and state.step == at:
                os.kill(os.getpid(), signal.SIGTERM)

        hook = state.model.net.register_forward_pre_hook(forward)
        run.run(state, PIXELS, LABELS, place, STAGES)
        hook.remove()
        steps.append((state.step, state.stop, state.model.config.image_size))
        state.stop = False
        if rank == 0:
            save(state, folder / f"stopped-{at}.safetensors")
    return {"steps": steps}


def seconds(folder, rank):
    """The second process's clock runs far ahead; both get the number of the first."""
    state = fresh(replace(EIGHT, steps=None, seconds=5.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "CALIBRATION", range(2, 6))
        counter, ticks = pace.time.perf_counter, iter(range(1000))
        if rank == 1:
            patch.setattr(pace.time, "perf_counter", lambda: counter() + 100 * next(ticks))
        for progress in train(state, IMAGES, LABELS):
            if progress.steps is not None:
                break
    return {"count": state.config.steps}


def not_finite(folder, rank):
    """The second process meets an image that is not finite: both stop, before the average."""
    images = IMAGES.clone()
    state = fresh(EIGHT)
    state.model.net.conv_in.register_forward_hook(lambda layer, args, out: out * float("nan") if rank == 1 and state.step == 2 else out)
    try:
        list(train(state, images, LABELS))
    except FloatingPointError as error:
        return {"error": str(error), "step": state.step}


def uneven(folder, rank):
    """Nine images for two processes."""
    try:
        train(fresh(replace(RUN, batch=9)), IMAGES, LABELS)
    except ValueError as error:
        return {"error": str(error)}


def cramped(folder, rank):
    """Out of memory in one process of several."""
    def forward(net, args):
        raise torch.OutOfMemoryError

    state = fresh(EIGHT)
    state.model.net.register_forward_pre_hook(forward)
    try:
        list(train(state, IMAGES, LABELS))
    except MemoryError as error:
        return {"error": str(error)}


SCENARIOS = [same_as_alone, dropout, stop, terminated, seconds, not_finite, uneven, cramped]


def worker(folder):
    torch.set_num_threads(1)
    with run.together() as where:
        rank, world = training.processes()
        assert world == 2 and where.type == "cpu" and rank == int(os.environ["RANK"])
        for scenario in SCENARIOS:
            said = scenario(folder, rank)
            (folder / f"{scenario.__name__}-{rank}.json").write_text(json.dumps(said))


# What comes of it.

def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folder in which two processes have run all scenarios; what each printed is in rank-N.err."""
    folder = tmp_path_factory.mktemp("both")
    processes, port = [], free_port()
    for rank in ("0", "1"):
        environment = {**LOCAL, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}
        with open(folder / f"rank-{rank}.err", "w") as err:
            processes.append(subprocess.Popen([sys.executable, __file__, str(folder)], env=environment, stdout=err, stderr=err))
    try:
        codes = [process.wait(timeout=300) for process in processes]
    except subprocess.TimeoutExpired:
        codes = ["the processes wait for each other"]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert codes == [0, 0], "\n".join((folder / f"rank-{rank}.err").read_text()[-3000:] for rank in "01")
    return folder


@pytest.fixture
def said(both):
    return lambda scenario: [json.loads((both / f"{scenario.__name__}-{rank}.json").read_text()) for rank in "01"]


@pytest.fixture(scope="module")
def alone():
    """One process, whole batches."""
    state = fresh(EIGHT)
    list(train(state, IMAGES, LABELS))
    return state


@pytest.mark.parametrize("micro", [None, 2, 3])
def test_two_processes_are_the_run_of_one(micro, both, alone):
    """Losses and weights to 1e-5, with micro-batches too; in both processes the same bits.  (Each has half of every batch, and DDP averages gradients.)"""
    first, second = (resume(both / f"same-{micro}-{rank}.safetensors") for rank in (0, 1))
    assert_same(first, second)
    assert_same(first, alone, tolerance=1e-5)


def test_processes_meet_once_a_step(said):
    """Of two micro-batches, the first is not followed by an exchange of gradients, which would double the cost of it."""
    for answer in said(same_as_alone):
        assert answer["apart"] == 8 * [2] + 8 * [3]


def test_each_process_drops_other_units(both, said):
    """With one seed for all, the second half of a batch would lose the units of the first; the weights are the same in both, still."""
    first, second = (answer["dropped"] for answer in said(dropout))
    assert all(a != b for a, b in zip(first, second)) and first[0] != first[1]
    assert_same(*(resume(both / f"dropout-{rank}.safetensors") for rank in (0, 1)))


def test_all_processes_stop_at_the_same_step(said):
    """Whenever one of them is asked, they agree when they meet next; one that left alone would let the others wait for ever (Lightning #20825)."""
    first, second = (answer["ends"] for answer in said(stop))
    assert first == second == {"between": [5, True, 0], "before": [5, True, 0], "after": [6, True, 0]}


def test_sigterm_to_one_process_saves_the_run_of_all(both, said):
    """In either stage; the run that goes on is the run that was never stopped, and may go on in one process."""
    first, second = (answer["steps"] for answer in said(terminated))
    assert first == second == [[2, True, 4], [6, True, 8], [8, False, 8]]
    whole = fresh(EIGHT)
    (both / "whole").mkdir()
    run.run(whole, PIXELS, LABELS, both / "whole", STAGES)
    assert_same(resume(both / "run-0" / "checkpoint.safetensors"), whole, tolerance=1e-5)
    for at in (1, 5):
        again = resume(both / f"stopped-{at}.safetensors")
        run.run(again, PIXELS, LABELS, both / "whole", STAGES)
        assert_same(again, whole, tolerance=1e-5)


def test_only_the_first_process_writes_and_shows_progress(both, said):
    """One folder, one log, one bar."""
    said(terminated)
    assert not (both / "run-1").exists()
    assert {p.name for p in (both / "run-0").iterdir()} == {"checkpoint.safetensors", "checkpoint-previous.safetensors", "log.jsonl"}
    assert "training:" in (both / "rank-0.err").read_text() and "training:" not in (both / "rank-1.err").read_text()


def test_seconds_are_the_same_number_of_steps_for_all(said):
    """The first process's: by its own clock, the second would have made it fewer."""
    first, second = (answer["count"] for answer in said(seconds))
    assert first == second > 7


def test_a_loss_that_is_not_finite_in_one_process_stops_all(said):
    """With the step, and the weights of the step before."""
    for answer in said(not_finite):
        assert re.search("loss nan.*step 2", answer["error"]) and answer["step"] == 2


def test_a_batch_that_cannot_be_shared_out_is_refused(said):
    """9 images, 2 processes."""
    for answer in said(uneven):
        assert re.search(r"batch is 9.*multiple.*processes, 2", answer["error"])


def test_out_of_memory_in_one_of_several_processes_names_the_micro_batch_to_try(said):
    """It cannot halve alone: the others would wait for it."""
    for answer in said(cramped):
        assert re.search(r"out of memory with 4 images.*micro = 2", answer["error"])


def test_torchrun_trains_measures_and_leaves_one_folder(tmp_path):
    """python -m torch.distributed.run --nproc-per-node=2 -m ddpm_tutorial train: everything once, by the first process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}", "-m", "ddpm_tutorial",
               "train", "--steps", "6", "--batch", "8", "--timesteps", "2", "--per-class", "0", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, env=LOCAL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as torchrun:
        try:
            out, err = torchrun.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            torchrun.terminate()                                # it takes its processes with it
            raise
    assert torchrun.returncode == 0, err[-3000:]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert {"model.safetensors", "checkpoint.safetensors", "run.json", "figures.json", "samples.png"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert out.count("results go to") == out.count("trained steps 1 to 6") == err.count("training:   0%") == 1
    assert resume(tmp_path / "run" / "checkpoint.safetensors").step == 6


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
