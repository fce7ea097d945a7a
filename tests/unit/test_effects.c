/* Effects: what a step causes is collected, numbered and undone as one. */
#include "bus/effects.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct counter {
    struct state head;
    int64_t value;
};

static sl_err counter_decode(struct state *s, struct sl_str json)
{
    return sl_str_int(json, &((struct counter *)s)->value);
}

static void counter_encode(const struct state *s, struct sl_buf *out)
{
    sl_buf_int(out, ((const struct counter *)s)->value);
}

static const struct state_kind counter_kind = {.prefix = "counter",
                                               .size = sizeof(struct counter),
                                               .has_history = true,
                                               .decode = counter_decode,
                                               .encode = counter_encode};

/* Adds ev->number to counter ev->conv, appends an entry, tells "other" and says so; text "twice" needs a second counter first. */
static void step(struct effects *fx, const struct event *ev, int64_t now_ms)
{
    struct counter *c = fx_state(fx, &counter_kind, ev->conv);
    if (c == NULL)
        return;
    if (sl_str_eq_c(ev->text, "twice") && fx_state(fx, &counter_kind, SL_STR("second")) == NULL)
        return;
    if (sl_str_eq_c(ev->text, "delete")) {
        fx_delete(fx, c);
        return;
    }
    c->value += ev->number;
    fx_changed(fx, c);
    uint64_t n, v;
    bool is_visible = !sl_str_eq_c(ev->text, "hidden");
    (void)fx_append(fx, c, is_visible, SL_STR("\"x\":1"), &n, &v);
    struct event fact = {.type = EVENT_NEED, .conv = ev->conv, .ticket = ev->number, .at_ms = now_ms};
    for (int64_t i = 0; i < (ev->number > 0 ? ev->number : 1); i++)
        fx_fact(fx, SL_STR("in:{other}"), &fact);
    fx_timer_set(fx, ev->conv, "hold", 7, now_ms + 100);
}

static void bury(struct effects *fx, const struct event *ev, struct sl_str reason, int64_t now_ms)
{
    (void)reason, (void)now_ms;
    struct counter *c = fx_state(fx, &counter_kind, ev->conv);
    if (c != NULL)
        (void)fx_append(fx, c, true, SL_STR("\"dead\":true"), NULL, NULL);
}

static const struct part_ops ops = {.name = "counter", .step = step, .bury = bury};

struct world {
    struct state_cache *cache;
    struct effects *fx;
};

static struct world world_new(bool absent_is_empty)
{
    struct world w = {.cache = state_cache_new(100)};
    w.fx = effects_new("7", w.cache, absent_is_empty);
    return w;
}

static void world_free(struct world *w)
{
    effects_free(&w->fx);
    state_cache_free(&w->cache);
}

static struct event event(const char *conv, int64_t number, const char *text)
{
    return (struct event){.type = EVENT_MESSAGE,
                          .conv = sl_str_c(conv),
                          .number = number,
                          .text = sl_str_c(text),
                          .entry = SL_STR("1700000000000-3")};
}

static void test_effects_run_says_which_state_is_missing(void **unused)
{
    (void)unused;
    struct world w = world_new(false);
    struct event ev = event("first", 1, "twice");
    struct sl_str id;
    assert_int_equal(effects_run(w.fx, &ops, &ev, 5), FX_MISSING);
    assert_ptr_equal(effects_missing(w.fx, &id), &counter_kind);
    assert_true(sl_str_eq_c(id, "first"));
    assert_int_equal(state_cache_put(w.cache, &counter_kind, id, true, SL_STR("40"), 4, 2), SL_OK);
    assert_int_equal(effects_run(w.fx, &ops, &ev, 5), FX_MISSING);
    (void)effects_missing(w.fx, &id);
    assert_true(sl_str_eq_c(id, "second"));
    assert_int_equal(state_cache_put(w.cache, &counter_kind, id, false, SL_STR_NONE, 0, 0), SL_OK);
    assert_int_equal(effects_run(w.fx, &ops, &ev, 5), FX_DONE);
    const struct fx_history *h;
    assert_int_equal(effects_histories(w.fx, &h), 1);
    assert_int_equal(h[0].n, 5); /* goes on from what the store had */
    assert_true(sl_str_eq_c(h[0].entry, "{\"n\":5,\"v\":3,\"x\":1}"));
    world_free(&w);
}

static void test_effects_append_hides_what_visitors_do_not_see(void **unused)
{
    (void)unused;
    struct world w = world_new(true);
    struct event seen = event("a", 1, ""), hidden = event("a", 1, "hidden");
    const struct fx_history *h;
    assert_int_equal(effects_run(w.fx, &ops, &seen, 5), FX_DONE);
    assert_int_equal(effects_run(w.fx, &ops, &hidden, 5), FX_DONE);
    assert_int_equal(effects_run(w.fx, &ops, &seen, 5), FX_DONE);
    assert_int_equal(effects_histories(w.fx, &h), 3);
    assert_true(sl_str_starts(h[0].entry, "{\"n\":1,\"v\":1,"));
    assert_true(sl_str_starts(h[1].entry, "{\"n\":2,\"v\":0,"));
    assert_true(sl_str_starts(h[2].entry, "{\"n\":3,\"v\":2,"));
    world_free(&w);
}

static void test_effects_rollback_gives_numbers_back(void **unused)
{
    (void)unused;
    struct world w = world_new(true);
    effects_number_set(w.fx, SL_STR("in:{other}"), 41);
    struct event ev = event("a", 2, "");
    assert_int_equal(effects_run(w.fx, &ops, &ev, 5), FX_DONE);
    assert_int_equal(effects_number(w.fx, SL_STR("in:{other}")), 43);
    effects_rollback(w.fx);
    assert_int_equal(effects_number(w.fx, SL_STR("in:{other}")), 41);
    assert_int_equal(state_cache_count(w.cache), 0);
    assert_int_equal(effects_run(w.fx, &ops, &ev, 5), FX_DONE);
    effects_written(w.fx);
    effects_clear(w.fx);
    effects_rollback(w.fx); /* what was written stays */
    assert_int_equal(effects_number(w.fx, SL_STR("in:{other}")), 43);
    world_free(&w);
}

static void test_effects_facts_stand_in_order_with_their_numbers(void **unused)
{
    (void)unused;
    struct world w = world_new(true);
    struct event ev = event("a", 2, "");
    const struct sl_str *records;
    assert_int_equal(effects_run(w.fx, &ops, &ev, 9), FX_DONE);
    assert_int_equal(effects_records(w.fx, &records), 3);
    assert_true(sl_str_starts(records[0], "{\"h\":\"counter:a\",\"e\":{\"n\":1,"));
    assert_true(
        sl_str_starts(records[1], "{\"d\":\"in:{other}\",\"f\":1,\"e\":{\"t\":\"need\",\"c\":\"a\","));
    assert_true(sl_str_starts(records[2], "{\"d\":\"in:{other}\",\"f\":2,\"e\":"));
    world_free(&w);
}

static void test_effects_refuses_an_event_with_too_many_facts(void **unused)
{
    (void)unused;
    struct world w = world_new(true);
    struct event most = event("a", FX_FACTS_MAX, ""), more = event("a", FX_FACTS_MAX + 1, "");
    assert_int_equal(effects_run(w.fx, &ops, &most, 5), FX_DONE);
    assert_int_equal(effects_run(w.fx, &ops, &more, 5), FX_TOO_MUCH);
    world_free(&w);
}

static void test_effects_bury_leaves_placeholder_and_record(void **unused)
{
    (void)unused;
    struct world w = world_new(true);
    struct event ev = event("a", 1, "");
    const struct fx_history *h;
    const struct sl_str *records;
    assert_int_equal(effects_bury(w.fx, &ops, &ev, SL_STR("why"), 5), FX_DONE);
    assert_int_equal(effects_histories(w.fx, &h), 1);
    assert_int_equal(effects_records(w.fx, &records), 2);
    assert_true(sl_str_starts(records[1], "{\"e\":{\"t\":\"dead\""));
    effects_clear(w.fx);
    assert_int_equal(effects_bury(w.fx, NULL, &ev, SL_STR("why"), 5), FX_DONE); /* bare: the record alone */
    assert_int_equal(effects_histories(w.fx, &h), 0);
    assert_int_equal(effects_records(w.fx, &records), 1);
    world_free(&w);
}

static void test_effects_written_drops_deleted_states(void **unused)
{
    (void)unused;
    struct world w = world_new(true);
    struct event make = event("a", 1, ""), delete = event("a", 1, "delete");
    struct state *const *states;
    assert_int_equal(effects_run(w.fx, &ops, &make, 5), FX_DONE);
    assert_int_equal(effects_run(w.fx, &ops, &delete, 5), FX_DONE);
    assert_int_equal(effects_states(w.fx, &states), 1); /* once, though touched twice */
    assert_true(states[0]->is_deleted);
    effects_written(w.fx);
    assert_int_equal(state_cache_count(w.cache), 0);
    world_free(&w);
}

static void test_effects_cache_keeps_changed_states(void **unused)
{
    (void)unused;
    struct state_cache *cache = state_cache_new(16);
    struct effects *fx = effects_new("7", cache, true);
    struct event ev = event("kept", 1, "");
    assert_int_equal(effects_run(fx, &ops, &ev, 5), FX_DONE);
    char id[32];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(id, sizeof(id), "other%d", i);
        assert_int_equal(state_cache_put(cache, &counter_kind, sl_str_c(id), true, SL_STR("1"), 0, 0), SL_OK);
    }
    assert_in_range(state_cache_count(cache), 16, 18); /* bounded */
    effects_clear(fx);
    struct state *const *states;
    assert_int_equal(effects_run(fx, &ops, &ev, 5), FX_DONE);
    (void)effects_states(fx, &states);
    const struct fx_history *h;
    assert_int_equal(effects_histories(fx, &h), 1);
    assert_int_equal(h[0].n, 2); /* the changed one was never dropped */
    effects_free(&fx);
    state_cache_free(&cache);
}

static void test_effects_timer_parse_takes_the_last_two_parts(void **unused)
{
    (void)unused;
    struct sl_str object, name;
    int64_t gen;
    assert_int_equal(effects_timer_parse(SL_STR("7.01J|x|hold|12"), &object, &name, &gen), SL_OK);
    assert_true(sl_str_eq_c(object, "7.01J|x") && sl_str_eq_c(name, "hold") && gen == 12);
    assert_int_equal(effects_timer_parse(SL_STR("hold|12"), &object, &name, &gen), SL_EINVAL);
    assert_int_equal(effects_timer_parse(SL_STR("a|b|c"), &object, &name, &gen), SL_EINVAL);
}

static const struct state_kind note_kind = {
    .prefix = "note", .size = sizeof(struct counter), .decode = counter_decode, .encode = counter_encode};

/* Never asks for a state; says a deed that names the lease epoch. */
static void blind_step(struct effects *fx, const struct event *ev, int64_t now_ms)
{
    (void)now_ms;
    if (sl_str_eq_c(ev->text, "drop")) {
        fx_drop(fx, &note_kind, ev->conv);
        return;
    }
    struct counter *c = fx_blank(fx, &note_kind, ev->conv);
    assert_int_equal(c->value, 0); /* whatever stood there */
    c->value = ev->number;
    fx_changed(fx, c);
    fx_do(fx, &(struct event){.type = EVENT_SEND, .conv = ev->conv, .control = fx_epoch(fx)});
}

static void test_effects_deeds_and_states_that_are_not_looked_at(void **state)
{
    static const struct part_ops blind = {.name = "blind", .step = blind_step};
    struct state_cache *cache = state_cache_new(100);
    struct effects *fx = effects_new("send:x", cache, false);
    struct state *const *states;
    const struct event *deeds;
    (void)state;
    effects_set_epoch(fx, 42);
    effects_clear(fx);
    struct event ev = {.type = EVENT_SEND, .conv = SL_STR("a"), .number = 5, .entry = SL_STR("1-1")};
    assert_int_equal(effects_run(fx, &blind, &ev, 1), FX_DONE); /* never FX_MISSING */
    ev.number = 6;
    assert_int_equal(effects_run(fx, &blind, &ev, 1), FX_DONE);
    assert_int_equal(effects_deeds(fx, &deeds), 2);
    assert_int_equal(deeds[1].control, 42);
    assert_int_equal(effects_states(fx, &states), 1);
    assert_int_equal(((const struct counter *)(const void *)states[0])->value, 6);
    effects_written(fx);
    assert_non_null(state_cache_peek(cache, &note_kind, SL_STR("a")));
    effects_clear(fx);
    assert_int_equal(effects_deeds(fx, &deeds), 0);
    ev.text = SL_STR("drop");
    assert_int_equal(effects_run(fx, &blind, &ev, 1), FX_DONE);
    assert_false(effects_has_deleted(fx)); /* no history: the batch goes on */
    assert_int_equal(effects_states(fx, &states), 1);
    assert_true(states[0]->is_deleted);
    effects_written(fx);
    assert_null(state_cache_peek(cache, &note_kind, SL_STR("a")));
    effects_free(&fx);
    state_cache_free(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_effects_run_says_which_state_is_missing),
        cmocka_unit_test(test_effects_append_hides_what_visitors_do_not_see),
        cmocka_unit_test(test_effects_rollback_gives_numbers_back),
        cmocka_unit_test(test_effects_facts_stand_in_order_with_their_numbers),
        cmocka_unit_test(test_effects_refuses_an_event_with_too_many_facts),
        cmocka_unit_test(test_effects_bury_leaves_placeholder_and_record),
        cmocka_unit_test(test_effects_written_drops_deleted_states),
        cmocka_unit_test(test_effects_cache_keeps_changed_states),
        cmocka_unit_test(test_effects_deeds_and_states_that_are_not_looked_at),
        cmocka_unit_test(test_effects_timer_parse_takes_the_last_two_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
