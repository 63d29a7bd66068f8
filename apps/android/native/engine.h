// What the three files of the JNI side of dev.edge.core.Llama share. Each function is one thing that Java asks of llama.cpp;
// everything that decides (templates, settings, what to keep of the cache, when to stop) is Java. No two of them may run
// at the same time for one model: Engine.java holds a lock. Only the cancel flag is read across threads.
#ifndef ENGINE_H
#define ENGINE_H

#include <jni.h>
#include <stdlib.h>

#include "llama_table.h"

#define NATIVE(type, name) JNIEXPORT type JNICALL Java_dev_edge_core_Llama_##name

struct engine {
    struct llama_model *model;
    const struct llama_vocab *vocab;
    struct llama_context *context;
    struct llama_sampler *sampler;
    volatile jint *cancel; // in a direct ByteBuffer of Java, kept alive by flag
    jobject flag;
};

extern struct llama_table llama;

static inline struct engine *engine_of(jlong handle) {
    return (struct engine *)(intptr_t)handle;
}

// New Java arrays; NULL with a pending OutOfMemoryError.
jbyteArray to_bytes(JNIEnv *env, const char *text, size_t size);
jintArray to_ints(JNIEnv *env, const jint *values, jsize count);

// A copy with a zero after its end, to be freed; NULL with a pending OutOfMemoryError.
char *from_bytes(JNIEnv *env, jbyteArray array);

// As malloc, never of 0 bytes; NULL with a pending OutOfMemoryError.
void *allocate(JNIEnv *env, size_t count, size_t size);

#endif
