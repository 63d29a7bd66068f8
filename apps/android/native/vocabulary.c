// What a model's file says (metadata, vocabulary), text to tokens, tokens to text.
#include "engine.h"

jbyteArray to_bytes(JNIEnv *env, const char *text, size_t size) {
    jbyteArray array = (*env)->NewByteArray(env, (jsize)size);
    if (array) (*env)->SetByteArrayRegion(env, array, 0, (jsize)size, (const jbyte *)text);
    return array;
}

void *allocate(JNIEnv *env, size_t count, size_t size) {
    void *memory = count > SIZE_MAX / size ? NULL : malloc(count ? count * size : 1);
    if (memory) return memory;
    jclass type = (*env)->FindClass(env, "java/lang/OutOfMemoryError");
    if (type) (*env)->ThrowNew(env, type, "llama.cpp's side of the app");
    return NULL;
}

char *from_bytes(JNIEnv *env, jbyteArray array) {
    jsize size = (*env)->GetArrayLength(env, array);
    char *text = allocate(env, (size_t)size + 1, 1);
    if (!text) return NULL;
    (*env)->GetByteArrayRegion(env, array, 0, size, (jbyte *)text);
    text[size] = 0;
    return text;
}

jintArray to_ints(JNIEnv *env, const jint *values, jsize count) {
    jintArray array = (*env)->NewIntArray(env, count);
    if (array) (*env)->SetIntArrayRegion(env, array, 0, count, values);
    return array;
}

// A value of the file's metadata as text; NULL when it is not there, or is an array.
NATIVE(jbyteArray, metadata)(JNIEnv *env, jclass class, jlong handle, jbyteArray key) {
    (void)class;
    struct engine *engine = engine_of(handle);
    char *name = from_bytes(env, key), none[1];
    int32_t size = name ? llama.llama_model_meta_val_str(engine->model, name, none, sizeof none) : -1;
    char *value = size < 0 ? NULL : allocate(env, (size_t)size + 1, 1);
    jbyteArray array = NULL;
    if (value) {
        llama.llama_model_meta_val_str(engine->model, name, value, (size_t)size + 1);
        array = to_bytes(env, value, (size_t)size);
    }
    free(value);
    free(name);
    return array;
}

NATIVE(jint, trainedContext)(JNIEnv *env, jclass class, jlong handle) {
    (void)env, (void)class;
    return llama.llama_model_n_ctx_train(engine_of(handle)->model);
}

// The token that every prompt starts with; -1 when there is none.
NATIVE(jint, bos)(JNIEnv *env, jclass class, jlong handle) {
    (void)env, (void)class;
    const struct llama_vocab *vocab = engine_of(handle)->vocab;
    return llama.llama_vocab_get_add_bos(vocab) ? llama.llama_vocab_bos(vocab) : -1;
}

// Tokens that end an answer, or control tokens.
NATIVE(jintArray, tokens)(JNIEnv *env, jclass class, jlong handle, jboolean ends) {
    (void)class;
    const struct llama_vocab *vocab = engine_of(handle)->vocab;
    jint size = llama.llama_vocab_n_tokens(vocab), eos = llama.llama_vocab_eos(vocab), count = 0;
    jint *found = allocate(env, (size_t)size, sizeof *found);
    if (!found) return NULL;
    for (jint token = 0; token < size; token++) {
        bool end = llama.llama_vocab_is_eog(vocab, token) || token == eos;
        if (ends ? end : llama.llama_vocab_is_control(vocab, token)) found[count++] = token;
    }
    jintArray array = to_ints(env, found, count);
    free(found);
    return array;
}

// UTF-8 to tokens, without BOS; special: texts of special tokens become those tokens. NULL when it cannot be done.
NATIVE(jintArray, tokenize)(JNIEnv *env, jclass class, jlong handle, jbyteArray utf8, jboolean special) {
    (void)class;
    struct engine *engine = engine_of(handle);
    jsize size = (*env)->GetArrayLength(env, utf8);
    char *text = from_bytes(env, utf8);
    jintArray array = NULL;
    // A token is seldom shorter than a byte. Where it is (a space that the vocabulary has not is the three bytes of
    // U+2581), llama.cpp says how many there are, as a number below 0.
    int32_t count = -(size < INT32_MAX - 8 ? size + 8 : INT32_MAX);
    while (text && !array && count < 0 && count != INT32_MIN) {
        int32_t capacity = -count;
        llama_token *found = allocate(env, (size_t)capacity, sizeof *found);
        if (!found) break;
        count = llama.llama_tokenize(engine->vocab, text, size, found, capacity, false, special);
        if (count >= 0) array = to_ints(env, found, count);
        free(found);
        if (count >= 0 || -(int64_t)count <= capacity) break;
    }
    free(text);
    return array;
}

// The bytes of a token, which may be part of a character; those of a special token only when asked for.
NATIVE(jbyteArray, piece)(JNIEnv *env, jclass class, jlong handle, jint token, jboolean special) {
    (void)class;
    struct engine *engine = engine_of(handle);
    char near[64], *text = near;
    int32_t size = llama.llama_token_to_piece(engine->vocab, token, near, sizeof near, 0, special);
    if (size < 0 && (text = allocate(env, (size_t)-(int64_t)size, 1)))
        size = llama.llama_token_to_piece(engine->vocab, token, text, -size, 0, special);
    jbyteArray array = text ? to_bytes(env, text, size > 0 ? (size_t)size : 0) : NULL;
    if (text != near) free(text);
    return array;
}

// What llama.cpp's own list of templates makes of a conversation, contents in turn user, assistant, user, ..; with a
// system message first when `system`. NULL when it does not know the template.
NATIVE(jbyteArray, render)(JNIEnv *env, jclass class, jbyteArray source, jobjectArray contents, jboolean system) {
    (void)class;
    enum { MOST = 8 };
    struct llama_chat_message messages[MOST];
    char *texts[MOST] = {NULL}, *template = from_bytes(env, source), out[4096];
    jsize count = (*env)->GetArrayLength(env, contents);
    bool whole = template && count <= MOST;
    for (jsize i = 0; whole && i < count; i++) {
        texts[i] = from_bytes(env, (jbyteArray)(*env)->GetObjectArrayElement(env, contents, i));
        const char *role = system && i == 0 ? "system" : (i % 2 == 0) != system ? "user" : "assistant";
        messages[i] = (struct llama_chat_message){role, texts[i]};
        whole = texts[i] != NULL;
    }
    int32_t size = -1;
    if (whole) size = llama.llama_chat_apply_template(template, messages, (size_t)count, true, out, sizeof out);
    for (jsize i = 0; i < MOST; i++) free(texts[i]);
    free(template);
    return size < 0 || size > (int32_t)sizeof out ? NULL : to_bytes(env, out, (size_t)size);
}
