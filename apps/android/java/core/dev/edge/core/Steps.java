package dev.edge.core;

/** Sends a progress event for every whole hundredth, and stops what goes on when it was cancelled. */
final class Steps implements Files.Advance {
    private final String stage;
    private final String model;
    private final long size;
    private final Cancel cancel;
    private final Reply reply;
    private long told = -1;

    /** size: bytes of the whole; 0 or less when not known. */
    Steps(String stage, String model, long size, Cancel cancel, Reply reply) {
        this.stage = stage;
        this.model = model;
        this.size = size;
        this.cancel = cancel;
        this.reply = reply;
    }

    @Override
    public boolean on(long bytes) {
        long step = size > 0 ? Math.min(100, (long) (100.0 * bytes / size)) : 0;
        if (step != told) {
            told = step;
            reply.send("progress", Json.object("stage", stage, "fraction", step / 100.0, "model", model));
        }
        return !cancel.isSet();
    }
}
