package dev.edge.core;

import java.io.File;

/** A model and its context in llama.cpp's memory: opened, or refused by a Failure that says why; freed once. */
final class Handle {
    /** Tokens that the context holds. */
    final int context;
    private long address;

    private Handle(long address, int context) {
        this.address = address;
        this.context = context;
    }

    /** Failure file_damaged, not_supported, memory_engine, or stopped when `cancel` was set meanwhile. */
    static Handle open(File file, int context, int threads, int batch, Cancel cancel, Llama.Progress progress)
            throws Failure {
        long address = Llama.load(file.getPath().getBytes(Engine.UTF_8), cancel.flag, progress);
        if (address == 0) {
            throw cancel.isSet() ? Engine.stopped() : refusal(file, new String(Llama.log(), Engine.UTF_8));
        }
        Handle handle = new Handle(address, Math.max(1, Math.min(context, Llama.trainedContext(address))));
        try {
            handle.prepare(file, threads, batch);
        } catch (Failure failure) {
            handle.free();
            throw failure;
        }
        return handle;
    }

    private void prepare(File file, int threads, int batch) throws Failure {
        if (!Llama.speaks(address)) {
            throw new Failure(
                    "not_supported", file.getName() + ": it is no model of text with a vocabulary", "choose another model");
        }
        if (!Llama.context(address, context, threads, Math.min(batch, context))) {
            throw new Failure(
                    "memory_engine",
                    "there is no memory for a context of " + context + " tokens",
                    "close other apps, or set a shorter context");
        }
    }

    private static Failure refusal(File file, String log) {
        String[] lines = log.trim().split("\n");
        String cause = lines[0].trim().isEmpty() ? "llama.cpp gives no reason" : lines[0].trim();
        if (log.contains("unknown model architecture") || log.contains("unknown pre-tokenizer")) {
            return new Failure("not_supported", file.getName() + ": " + cause, "update the app, or another model");
        }
        if (log.contains("allocate")) {
            return new Failure("memory_engine", file.getName() + ": " + cause, "close other apps, or a smaller model");
        }
        return new Failure("file_damaged", file.getName() + ": " + cause, "copy the file to the device again");
    }

    /** What the functions of Llama take. Failure no_model after `free`. */
    long get() throws Failure {
        if (address == 0) {
            throw new Failure("no_model", "no model is loaded", "choose a model");
        }
        return address;
    }

    void free() {
        if (address != 0) {
            Llama.free(address);
            address = 0;
        }
    }
}
