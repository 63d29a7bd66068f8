// Test only: calls the functions of the packaged libedge_llama.so as Android's runtime would, with a JNIEnv that holds
// just what they use. Prints the tokens of a greedy answer, each with the hexadecimal digits of its text, and writes the
// logits after the prompt and after each token but the last to a file.
// Arguments: libedge_llama.so, llama.cpp's library, model, prompt, how many tokens, file for the logits.
#include <dlfcn.h>
#include <jni.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// bionic keeps the stack protector's value in this thread's block, where musl has other things.
__thread char slot[256] __attribute__((aligned(16)));

struct array {
    jsize length;
    char *data;
};

static jint cancel;

static void *new_array(jsize length, size_t width, const void *data) {
    struct array *array = malloc(sizeof *array);
    array->length = length;
    array->data = calloc((size_t)length + 1, width);
    if (data) memcpy(array->data, data, (size_t)length * width);
    return array;
}

static struct array *of(void *array) {
    return array;
}

static jsize JNICALL length(JNIEnv *env, jarray a) { (void)env; return of(a)->length; }
static jbyteArray JNICALL new_bytes(JNIEnv *env, jsize n) { (void)env; return new_array(n, 1, NULL); }
static jintArray JNICALL new_ints(JNIEnv *env, jsize n) { (void)env; return new_array(n, 4, NULL); }
static jfloatArray JNICALL new_floats(JNIEnv *env, jsize n) { (void)env; return new_array(n, 4, NULL); }
static void JNICALL get_bytes(JNIEnv *env, jbyteArray a, jsize at, jsize n, jbyte *out) {
    (void)env;
    memcpy(out, of(a)->data + at, (size_t)n);
}
static void JNICALL set_bytes(JNIEnv *env, jbyteArray a, jsize at, jsize n, const jbyte *in) {
    (void)env;
    memcpy(of(a)->data + at, in, (size_t)n);
}
static void JNICALL get_ints(JNIEnv *env, jintArray a, jsize at, jsize n, jint *out) {
    (void)env;
    memcpy(out, (jint *)of(a)->data + at, (size_t)n * 4);
}
static void JNICALL set_ints(JNIEnv *env, jintArray a, jsize at, jsize n, const jint *in) {
    (void)env;
    memcpy((jint *)of(a)->data + at, in, (size_t)n * 4);
}
static void JNICALL set_floats(JNIEnv *env, jfloatArray a, jsize at, jsize n, const jfloat *in) {
    (void)env;
    memcpy((jfloat *)of(a)->data + at, in, (size_t)n * 4);
}
static jobject JNICALL keep(JNIEnv *env, jobject o) { (void)env; return o; }
static void JNICALL release(JNIEnv *env, jobject o) { (void)env; (void)o; }
static void *JNICALL address(JNIEnv *env, jobject o) { (void)env; return o; }
static jclass JNICALL class_of(JNIEnv *env, jobject o) { (void)env; return (jclass)o; }
static jmethodID JNICALL method(JNIEnv *env, jclass c, const char *name, const char *type) {
    (void)env; (void)c;
    if (strcmp(name, "on") || strcmp(type, "(D)Z")) abort();
    return (jmethodID)1;
}
static jboolean JNICALL call(JNIEnv *env, jobject o, jmethodID m, ...) { (void)env; (void)o; (void)m; return 1; }
static jboolean JNICALL pending(JNIEnv *env) { (void)env; return 0; }

#define FUNCTION(type, name, ...)                                                                                    \
    type (*name)(JNIEnv *, jclass, ##__VA_ARGS__) = dlsym(library, "Java_dev_edge_core_Llama_" #name);               \
    if (!name) { fprintf(stderr, "no %s\n", #name); return 1; }

int main(int count, char **words) {
    if (count != 7) return 2;
    slot[0] = 0;
    struct JNINativeInterface_ table = {
        .GetArrayLength = length, .NewByteArray = new_bytes, .NewIntArray = new_ints, .NewFloatArray = new_floats,
        .GetByteArrayRegion = get_bytes, .SetByteArrayRegion = set_bytes, .GetIntArrayRegion = get_ints,
        .SetIntArrayRegion = set_ints, .SetFloatArrayRegion = set_floats, .NewGlobalRef = keep,
        .DeleteGlobalRef = release, .GetDirectBufferAddress = address, .GetObjectClass = class_of,
        .GetMethodID = method, .CallBooleanMethod = call, .ExceptionCheck = pending,
    };
    JNIEnv env = &table;
    void *library = dlopen(words[1], RTLD_NOW);
    if (!library) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    FUNCTION(jint, link, jbyteArray)
    FUNCTION(jbyteArray, log)
    FUNCTION(jlong, load, jbyteArray, jobject, jobject)
    FUNCTION(jboolean, context, jlong, jint, jint, jint)
    FUNCTION(jint, bos, jlong)
    FUNCTION(jintArray, tokenize, jlong, jbyteArray, jboolean)
    FUNCTION(jint, rewind, jlong, jint)
    FUNCTION(jint, decode, jlong, jintArray, jint, jint)
    FUNCTION(jfloatArray, logits, jlong)
    FUNCTION(void, sampler, jlong, jfloat, jint, jfloat, jfloat, jint)
    FUNCTION(jint, sample, jlong, jintArray, jfloat)
    FUNCTION(jbyteArray, piece, jlong, jint, jboolean)
    FUNCTION(void, free, jlong)
    jint linked = link(&env, NULL, new_array((jsize)strlen(words[2]), 1, words[2]));
    if (linked) { fprintf(stderr, "link %d: %s\n", linked, dlerror()); return 1; }
    jlong model = load(&env, NULL, new_array((jsize)strlen(words[3]), 1, words[3]), (jobject)&cancel, (jobject)1);
    if (!model) { fprintf(stderr, "load: %s\n", of(log(&env, NULL))->data); return 1; }
    if (!context(&env, NULL, model, 256, 1, 256)) return 1;
    struct array *text = new_array((jsize)strlen(words[4]), 1, words[4]);
    struct array *prompt = of(tokenize(&env, NULL, model, (jbyteArray)text, 1));
    rewind(&env, NULL, model, 0);
    int result = decode(&env, NULL, model, (jintArray)prompt, 0, prompt->length);
    FILE *out = fopen(words[6], "wb");
    sampler(&env, NULL, model, 0, 0, 1, 0, 0);
    for (int i = 0; i < atoi(words[5]) && result == 0; i++) {
        struct array *values = of(logits(&env, NULL, model));
        fwrite(values->data, 4, (size_t)values->length, out);
        jint token = sample(&env, NULL, model, new_array(0, 4, NULL), 1);
        struct array *text = of(piece(&env, NULL, model, token, 0));
        printf("%d ", token);
        for (jsize at = 0; at < text->length; at++) printf("%02x", (unsigned char)text->data[at]);
        printf("\n");
        result = decode(&env, NULL, model, new_array(1, 4, &token), 0, 1);
    }
    fclose(out);
    free(&env, NULL, model);
    return result;
}
