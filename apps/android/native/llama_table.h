// The functions of llama.cpp that the app calls, found by name in a library opened at run time: which of several
// libraries that is, the device's CPU decides (java/core, CpuVariant).
#ifndef LLAMA_TABLE_H
#define LLAMA_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llama.h"

#define LLAMA_FUNCTIONS(X)                                                                                           \
    X(llama_backend_init) X(llama_log_set)                                                                           \
    X(llama_model_default_params) X(llama_model_load_from_file) X(llama_model_free) X(llama_model_get_vocab)         \
    X(llama_model_meta_val_str) X(llama_model_n_ctx_train) X(llama_model_has_encoder) X(llama_vocab_type)            \
    X(llama_context_default_params) X(llama_init_from_model) X(llama_free) X(llama_get_memory)                       \
    X(llama_memory_clear) X(llama_memory_seq_rm) X(llama_batch_get_one) X(llama_decode) X(llama_get_logits_ith)      \
    X(llama_n_batch)                                                                                                 \
    X(llama_vocab_n_tokens) X(llama_vocab_is_control) X(llama_vocab_is_eog) X(llama_vocab_bos) X(llama_vocab_eos)    \
    X(llama_vocab_get_add_bos) X(llama_tokenize) X(llama_token_to_piece) X(llama_chat_apply_template)                \
    X(llama_sampler_chain_default_params) X(llama_sampler_chain_init) X(llama_sampler_chain_add)                     \
    X(llama_sampler_init_greedy) X(llama_sampler_init_temp) X(llama_sampler_init_top_k) X(llama_sampler_init_top_p)  \
    X(llama_sampler_init_min_p) X(llama_sampler_init_dist) X(llama_sampler_sample) X(llama_sampler_free)

struct llama_table {
#define MEMBER(name) __typeof__(&name) name;
    LLAMA_FUNCTIONS(MEMBER)
#undef MEMBER
};

#endif
