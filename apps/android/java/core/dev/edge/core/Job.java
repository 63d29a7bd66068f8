package dev.edge.core;

import java.io.IOException;
import java.io.InputStream;
import java.util.Map;

/** Something for the worker. */
final class Job {
    final String type;
    final Map<String, Object> request;
    /** Of an import: what a provider gave; null of all else. */
    final InputStream data;
    /** Marked under the queue's lock: it ends as soon as it begins. */
    boolean stopped;

    Job(String type, Map<String, Object> request, InputStream data) {
        this.type = type;
        this.request = request;
        this.data = data;
    }

    /** The data is read, or never will be. */
    void release() {
        try {
            if (data != null) {
                data.close();
            }
        } catch (IOException gone) {
            return;
        }
    }
}
