// The cache, the forward pass, and the choice of a token.
#include "engine.h"

// Forgets the cache from `position` on; how much is left of it: 0 where a part cannot be forgotten.
NATIVE(jint, rewind)(JNIEnv *env, jclass class, jlong handle, jint position) {
    (void)env, (void)class;
    llama_memory_t memory = llama.llama_get_memory(engine_of(handle)->context);
    if (position > 0 && llama.llama_memory_seq_rm(memory, 0, position, -1)) return position;
    llama.llama_memory_clear(memory, false);
    return 0;
}

// Runs the tokens behind what the cache holds; llama_decode's result: 0, 1 (full), 2 (cancelled), below 0 (failed). More
// tokens than a batch holds would abort the app.
NATIVE(jint, decode)(JNIEnv *env, jclass class, jlong handle, jintArray tokens, jint from, jint count) {
    (void)class;
    struct engine *engine = engine_of(handle);
    if (count < 1 || (uint32_t)count > llama.llama_n_batch(engine->context)) return -1;
    llama_token *batch = allocate(env, (size_t)count, sizeof *batch);
    if (!batch) return -1;
    int32_t result = -1;
    (*env)->GetIntArrayRegion(env, tokens, from, count, batch);
    if (!(*env)->ExceptionCheck(env))
        result = llama.llama_decode(engine->context, llama.llama_batch_get_one(batch, count));
    free(batch);
    return result;
}

// Logits after the last token; NULL when there are none.
NATIVE(jfloatArray, logits)(JNIEnv *env, jclass class, jlong handle) {
    (void)class;
    struct engine *engine = engine_of(handle);
    const float *logits = llama.llama_get_logits_ith(engine->context, -1);
    jsize size = llama.llama_vocab_n_tokens(engine->vocab);
    jfloatArray array = logits ? (*env)->NewFloatArray(env, size) : NULL;
    if (array) (*env)->SetFloatArrayRegion(env, array, 0, size, logits);
    return array;
}

// The order is that of edge.chat.sampling: temperature, top-k, top-p, min-p, draw. temperature 0: the likeliest.
NATIVE(void, sampler)
(JNIEnv *env, jclass class, jlong handle, jfloat temperature, jint top_k, jfloat top_p, jfloat min_p, jint seed) {
    (void)env, (void)class;
    struct engine *engine = engine_of(handle);
    if (engine->sampler) llama.llama_sampler_free(engine->sampler);
    struct llama_sampler *chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params());
    if (temperature > 0) {
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_temp(temperature));
        if (top_k > 0) llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_top_k(top_k));
        if (top_p < 1) llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_top_p(top_p, 1));
        if (min_p > 0) llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_min_p(min_p, 1));
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_dist((uint32_t)seed));
    } else {
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_greedy());
    }
    engine->sampler = chain;
}

// The next token. penalty (arXiv 1909.05858, section 4.1) divides the logits of `seen`, distinct tokens, where they are
// positive and multiplies them where not; in place, for the next decode writes them anew. -1 where there are no logits to
// choose from: llama.cpp would abort the app.
NATIVE(jint, sample)(JNIEnv *env, jclass class, jlong handle, jintArray seen, jfloat penalty) {
    (void)class;
    struct engine *engine = engine_of(handle);
    float *logits = llama.llama_get_logits_ith(engine->context, -1);
    if (!logits) return -1;
    jsize count = (*env)->GetArrayLength(env, seen);
    for (jsize i = 0; i < count; i++) {
        jint token;
        (*env)->GetIntArrayRegion(env, seen, i, 1, &token);
        logits[token] = logits[token] > 0 ? logits[token] / penalty : logits[token] * penalty;
    }
    return llama.llama_sampler_sample(engine->sampler, engine->context, -1);
}
