package dev.edge.app;

import android.content.ContentResolver;
import android.database.Cursor;
import android.net.Uri;
import android.provider.OpenableColumns;
import dev.edge.core.Json;
import java.io.IOException;
import java.io.InputStream;

/** A file that the person chose. The controller copies it: llama.cpp maps a real file, a provider gives a stream. */
final class Picked {
    static final String NO_PICKER =
            error("This device has no file picker.", "Send the model over a cable with `edge push`.");
    private static final String UNREADABLE =
            error("The chosen file cannot be read.", "Copy it to this device first, then choose it again.");
    private static final String[] COLUMNS = {OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE};

    private final ContentResolver resolver;
    private final Uri uri;

    Picked(ContentResolver resolver, Uri uri) {
        this.resolver = resolver;
        this.uri = uri;
    }

    /** Asks the provider away from the main thread: it may be a cloud. */
    void importInto(final Session session) {
        new Thread(new Runnable() {
            @Override
            public void run() {
                try {
                    open(session);
                } catch (IOException | RuntimeException refused) {
                    session.event(UNREADABLE);
                }
            }
        }, "edge-pick").start();
    }

    private void open(Session session) throws IOException {
        String name = uri.getLastPathSegment();
        long size = -1;
        try (Cursor cursor = resolver.query(uri, COLUMNS, null, null, null)) {
            if (cursor != null && cursor.moveToFirst()) {
                name = cursor.isNull(0) ? name : cursor.getString(0);
                size = cursor.isNull(1) ? -1 : cursor.getLong(1);
            }
        }
        InputStream data = resolver.openInputStream(uri);
        if (data == null) {
            throw new IOException("the provider gave no stream");
        }
        session.importFile(name == null ? "model.gguf" : name, data, size);
    }

    private static String error(String message, String hint) {
        return Json.write(
                Json.object("type", "error", "code", "storage", "request", null, "message", message, "hint", hint));
    }
}
