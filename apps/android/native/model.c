// Opening llama.cpp's library, a model's file and a context; and closing them.
#include <dlfcn.h>
#include <string.h>

#include "engine.h"

#define MAX_LOG 1024

enum { OK = 0, NO_LIBRARY = 1, NO_FUNCTION = 2 };

struct llama_table llama;
static char log_text[MAX_LOG];
static size_t log_size;

// Keeps the warnings and errors since the last load, for the message that a person reads.
static void keep_log(enum lm_ggml_log_level level, const char *text, void *unused) {
    (void)unused;
    if (level != LM_GGML_LOG_LEVEL_ERROR && level != LM_GGML_LOG_LEVEL_WARN) return;
    size_t size = strlen(text);
    if (size > MAX_LOG - log_size) size = MAX_LOG - log_size;
    memcpy(log_text + log_size, text, size);
    log_size += size;
}

static bool cancelled(void *engine) {
    return *((struct engine *)engine)->cancel != 0;
}

NATIVE(jint, link)(JNIEnv *env, jclass class, jbyteArray path) {
    (void)class;
    char *name = from_bytes(env, path);
    void *library = name ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : NULL;
    free(name);
    if (!library) return NO_LIBRARY;
#define FIND(function)                                                                                               \
    if (!(llama.function = (__typeof__(llama.function))dlsym(library, #function))) return NO_FUNCTION;
    LLAMA_FUNCTIONS(FIND)
#undef FIND
    llama.llama_log_set(keep_log, NULL);
    llama.llama_backend_init();
    return OK;
}

NATIVE(jbyteArray, log)(JNIEnv *env, jclass class) {
    (void)class;
    return to_bytes(env, log_text, log_size);
}

struct loading {
    JNIEnv *env;
    jobject progress;
    jmethodID on;
    struct engine *engine;
};

static bool on_progress(float fraction, void *data) {
    struct loading *loading = data;
    if (cancelled(loading->engine)) return false;
    JNIEnv *env = loading->env;
    jboolean more = (*env)->CallBooleanMethod(env, loading->progress, loading->on, (jdouble)fraction);
    return more && !(*env)->ExceptionCheck(env);
}

static jmethodID method_on(JNIEnv *env, jobject progress) {
    return (*env)->GetMethodID(env, (*env)->GetObjectClass(env, progress), "on", "(D)Z");
}

static void destroy(JNIEnv *env, struct engine *engine) {
    if (engine->sampler) llama.llama_sampler_free(engine->sampler);
    if (engine->context) llama.llama_free(engine->context);
    if (engine->model) llama.llama_model_free(engine->model);
    if (engine->flag) (*env)->DeleteGlobalRef(env, engine->flag);
    free(engine);
}

// Maps the weights; 0 when llama.cpp refuses (log says why), memory is short, or the flag was set.
NATIVE(jlong, load)(JNIEnv *env, jclass class, jbyteArray path, jobject flag, jobject progress) {
    (void)class;
    log_size = 0;
    struct engine *engine = calloc(1, sizeof *engine);
    char *name = from_bytes(env, path);
    jmethodID on = (*env)->ExceptionCheck(env) ? NULL : method_on(env, progress);
    if (engine && name && on) {
        engine->flag = (*env)->NewGlobalRef(env, flag);
        engine->cancel = (*env)->GetDirectBufferAddress(env, flag);
    }
    if (engine && engine->flag && engine->cancel) {
        struct loading loading = {env, progress, on, engine};
        struct llama_model_params params = llama.llama_model_default_params();
        params.n_gpu_layers = 0;
        params.progress_callback = on_progress;
        params.progress_callback_user_data = &loading;
        engine->model = llama.llama_model_load_from_file(name, params);
    }
    free(name);
    if (engine && engine->model) {
        engine->vocab = llama.llama_model_get_vocab(engine->model);
        return (jlong)(intptr_t)engine;
    }
    if (engine) destroy(env, engine);
    return 0;
}

NATIVE(void, free)(JNIEnv *env, jclass class, jlong handle) {
    (void)class;
    destroy(env, engine_of(handle));
}

// Whether it has a vocabulary and gives logits token by token; llama.cpp aborts on others when they are asked to speak.
NATIVE(jboolean, speaks)(JNIEnv *env, jclass class, jlong handle) {
    (void)env, (void)class;
    struct engine *engine = engine_of(handle);
    bool words = llama.llama_vocab_type(engine->vocab) != LLAMA_VOCAB_TYPE_NONE;
    return words && !llama.llama_model_has_encoder(engine->model);
}

// A KV cache for n_ctx tokens and the work buffers; false without the memory.
NATIVE(jboolean, context)(JNIEnv *env, jclass class, jlong handle, jint n_ctx, jint threads, jint batch) {
    (void)env, (void)class;
    struct engine *engine = engine_of(handle);
    struct llama_context_params params = llama.llama_context_default_params();
    params.n_ctx = (uint32_t)n_ctx;
    params.n_batch = params.n_ubatch = (uint32_t)batch;
    params.n_threads = params.n_threads_batch = threads;
    params.swa_full = true; // a windowed cache could not be rewound
    params.no_perf = true;
    params.abort_callback = cancelled;
    params.abort_callback_data = engine;
    engine->context = llama.llama_init_from_model(engine->model, params);
    return engine->context != NULL;
}

