package dev.edge.app;

import android.content.Context;
import dev.edge.core.Controller;
import dev.edge.core.Events;
import java.io.InputStream;

/** The controller and the page that listens to it. It outlives an activity that Android makes anew (dark mode). */
final class Session implements Events {
    private static Session open;

    private final Controller controller;
    private volatile Page page;

    private Session(Context context) {
        controller = new Controller(new Device(context), this);
    }

    /** The session of this process; call on the main thread. */
    static Session of(Context context) {
        if (open == null) {
            open = new Session(context.getApplicationContext());
        }
        return open;
    }

    void show(Page page) {
        this.page = page;
    }

    void hide(Page page) {
        if (this.page == page) {
            this.page = null;
        }
    }

    void request(String json) {
        controller.request(json);
    }

    /** Copies a file into the app; `size` is -1 when it is not known. The stream is closed at its end. */
    void importFile(String name, InputStream data, long size) {
        controller.importFile(name, data, size);
    }

    /** Without a page nothing is lost: the next one asks for the state by `hello`. */
    @Override
    public void event(String json) {
        Page shown = page;
        if (shown != null) {
            shown.receive(json);
        }
    }

    /** Stops what runs and frees the model, away from the main thread: a token may take a second. */
    void close() {
        open = null;
        new Thread(new Runnable() {
            @Override
            public void run() {
                controller.close();
            }
        }, "edge-close").start();
    }
}
