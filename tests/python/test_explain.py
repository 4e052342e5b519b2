"""fanano.explain of the backward pass: the plan that attention_backward has."""

import numpy as np

import fanano


def test_the_plan_of_backward():
    shapes = (2, 8, 4096, 64), (2, 2, 4096, 64), (2, 2, 4096, 64)
    arrays = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    plan = fanano.explain(*arrays, is_causal=True, backward=True)
    assert plan.backward
    assert not fanano.explain(*arrays).backward
    assert plan.algorithm == "flash"
    assert plan.isa == fanano.explain(*arrays).isa
    words = ("attention backward on", "batch 2", "heads 8 over 2", "causal", "no scores")
    for text in (*words, f"{plan.tile[0]} query rows x {plan.tile[1]} keys", f"{plan.tasks} tasks"):
        assert text in str(plan)
    assert "dq, dk, dv\n" in str(plan)
    # m, weight and delta of each row; and sums of dk and dv, if there are few key heads.
    numbers = 3 * 2 * 8 * 4096 * 4
    assert numbers <= plan.workspace_bytes <= 1.01 * numbers + plan.tasks * 4096 * 128 * 4
    mask = np.zeros((8, 1, 4096), np.float32)
    more = fanano.explain(*arrays, attn_mask=mask, sinks=[0.0] * 8, backward=True, grad_mask=True)
    # A task for each head and tile of 128 keys.
    assert "dq, dk, dv, dbias (q k and dout v once more, 256 tasks), dsinks\n" in str(more)
    assert "dbias" not in str(fanano.explain(*arrays, attn_mask=mask, backward=True))


def test_one_thread_has_the_sums_of_a_key_head_to_itself():
    x = np.broadcast_to(np.float32(0), (1, 1, 8192, 64))
    before = fanano.get_num_threads()
    try:
        fanano.set_num_threads(1)
        alone = fanano.explain(x, x, x, backward=True)
        fanano.set_num_threads(2)
        both = fanano.explain(x, x, x, backward=True)
    finally:
        fanano.set_num_threads(before)
    assert (alone.threads, alone.tasks) == (1, 1)
    assert both.threads == 2
    assert f"{both.tasks} tasks, each one sum of a key head" in str(both)
    assert f"sums       {both.tasks} of dk and dv" in str(alone)
    sums = 8192 * 128 * 4
    assert both.workspace_bytes - alone.workspace_bytes >= both.tasks * sums
    assert alone.scratch_bytes - both.scratch_bytes >= 2 * sums
