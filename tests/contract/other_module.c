/* tests/contract/other_module.c - a Redis module that says it is ours, of this version and of another build, and can do nothing. */
#define REDISMODULE_API  static
#define REDISMODULE_ATTR REDISMODULE_ATTR_UNUSED
#include <redismodule.h>

__attribute__((visibility("default"))) int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv,
                                                              int argc);

static int on_about(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    (void)argv, (void)argc;
    return RedisModule_ReplyWithSimpleString(ctx, SLUICE_VERSION);
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    (void)argv, (void)argc;
    if (RedisModule_Init(ctx, "sluice", 1, REDISMODULE_APIVER_1) != REDISMODULE_OK)
        return REDISMODULE_ERR;
    return RedisModule_CreateCommand(ctx, "sluice.about_1", on_about, "readonly fast", 0, 0, 0);
}
