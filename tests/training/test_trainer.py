from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gotd.training import devices
from gotd.training.causal_lm import CausalLMSettings
from gotd.training.devices import choose_strategy
from gotd.training.masked_lm import MaskedLM, MaskedLMSettings
from gotd.training.models import load_masked_lm
from gotd.training.optimisation import group_parameters, linear_schedule, resolve_precision
from gotd.training.randomness import TrainingSeeds, isolated_randomness, seed_generators
from gotd.training.scorer import ScorerSettings
from gotd.training.settings import TrainingSettings, identity_of

SEEDS = TrainingSeeds.derive(1)


def test_schedule_rises_to_its_peak_and_falls_to_zero():
    rates = [linear_schedule(step, 20, 0.25) for step in range(21)]
    assert rates[:6] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[20] == 0
    assert max(rates) == 1
    assert all(a > b for a, b in zip(rates[5:], rates[6:], strict=False))
    assert linear_schedule(0, 20, 0.0) == 1


def test_a_single_step_is_taken():
    assert linear_schedule(0, 1, 0.06) == 1
    assert [linear_schedule(step, 2, 0.06) for step in (0, 1)] == [0, 1]


def test_steps_are_counted():
    def steps(epochs, **options):
        options |= {"learning_rate": 1.0, "global_batch_size": 8}
        return CausalLMSettings(epochs=epochs, **options).count_steps(73)

    assert [steps(epochs) for epochs in (0, 0.01, 0.5, 3)] == [0, 1, 5, 30]
    assert steps(3, max_steps=4) == 4
    assert steps(3, max_steps=400) == 30


def test_only_matrices_decay():
    network = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    settings = TrainingSettings(learning_rate=0.1, epochs=1, weight_decay=0.5)
    groups = {g["weight_decay"]: g["params"] for g in group_parameters(network, settings)}
    assert [p.ndim for p in groups[0.5]] == [2]
    assert [p.ndim for p in groups[0.0]] == [1, 1, 1]


def test_seeded_block_leaves_the_generator_as_it_was():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with isolated_randomness():
            seed_generators(7)
            draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(state, torch.get_rng_state())


def test_identity_ignores_what_changes_nothing_and_sees_the_rest():
    def hashed(epochs=1, seeds=SEEDS, data="x", **options):
        settings = ScorerSettings(learning_rate=0.1, epochs=epochs, **options)
        return identity_of(settings, seeds, data)

    assert hashed() == hashed(per_device_batch_size=3, checkpoint_every_steps=7)
    roles = [TrainingSeeds(2, 1, 1), TrainingSeeds(1, 2, 1), TrainingSeeds(1, 1, 2)]
    others = [hashed(epochs=2), hashed(data="y"), *(hashed(seeds=seeds) for seeds in roles)]
    assert len({hashed(), *others}) == 6


def test_narrow_models_stay_in_float32():
    assert resolve_precision("auto", "cpu", nn.Linear(2, 2)) == "float32"
    assert resolve_precision("bf16", "cpu", nn.Linear(2, 2)) == "bf16"


def test_fsdp_is_refused_where_it_cannot_run(tiny_base, monkeypatch):
    network = load_masked_lm(tiny_base)[0]
    with pytest.raises(ValueError, match="several devices: ask for devices=N"):
        choose_strategy("fsdp", network)
    monkeypatch.setenv("WORLD_SIZE", "2")
    network.bfloat16().get_input_embeddings().float()
    with pytest.raises(ValueError, match="weights of one type"):
        choose_strategy("fsdp", network)
    with pytest.raises(ValueError, match="for causal models"):
        MaskedLMSettings(learning_rate=1.0, epochs=1, strategy="fsdp")


def test_one_process_shares_with_nobody(tiny_base):
    assert choose_strategy("ddp", load_masked_lm(tiny_base)[0]) == "auto"


@pytest.mark.parametrize(("here", "all_processes", "nodes"), [(1, 1, 1), (2, 6, 3), (4, 4, 1)])
def test_the_processes_of_a_launcher_are_shared_by_its_nodes(
    monkeypatch, here, all_processes, nodes
):
    made: list[dict] = []
    monkeypatch.setattr(devices, "Trainer", lambda **options: made.append(options))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    monkeypatch.setenv("WORLD_SIZE", str(all_processes))
    devices.lightning_trainer(10, "cpu", "ddp", nn.Linear(1, 1))
    assert (made[0]["devices"], made[0]["num_nodes"]) == (here, nodes)
    assert made[0]["devices"] * made[0]["num_nodes"] == all_processes


def test_devices_that_average_their_gradients_sum_them(calm_base, texts):
    """Each device counts the terms of all, so its gradient is multiplied by their number.

    AdamW hides a factor, and the limit of the norm hides a large one: gradients are compared.
    """

    def gradients(devices, monkeypatch):
        sizes = {"global_batch_size": 8, "max_length_tokens": 48}
        settings = MaskedLMSettings(learning_rate=1e-3, epochs=1, **sizes)
        module = MaskedLM(calm_base, texts[:8], settings, SEEDS)
        module.initialise()
        optimizer = SimpleNamespace(param_groups=[], step=lambda: None, zero_grad=lambda **_: None)
        found = {}
        with monkeypatch.context() as patch:
            patch.setattr(MaskedLM, "trainer", SimpleNamespace(world_size=devices))
            patch.setattr(MaskedLM, "global_rank", 0)
            patch.setattr(module, "optimizers", lambda: optimizer)
            patch.setattr(module, "manual_backward", lambda loss: loss.backward())

            def keep(_):
                named = module.network.named_parameters()
                found.update({n: p.grad.clone() for n, p in named if p.grad is not None})

            patch.setattr(module, "before_update", keep)
            module.training_step(module.collate(0, torch.arange(8).numpy()), 0)
        return found

    with pytest.MonkeyPatch.context() as monkeypatch:
        alone, shared = gradients(1, monkeypatch), gradients(2, monkeypatch)
    assert any(gradient.abs().max() > 1e-4 for gradient in alone.values())
    for name, gradient in alone.items():
        torch.testing.assert_close(shared[name], 2 * gradient)


def test_devices_look_for_weights_that_a_step_does_not_use(monkeypatch):
    """C29, as intended: the encoder is unused while a head is trained alone.

    Without the search such a run would wait for ever. With it other runs get a notice.
    """
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose_strategy("ddp", torch.nn.Linear(1, 1)) == "ddp_find_unused_parameters_true"
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert choose_strategy("ddp", torch.nn.Linear(1, 1)) == "auto"
