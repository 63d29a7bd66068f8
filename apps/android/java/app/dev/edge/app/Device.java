package dev.edge.app;

import android.content.Context;
import dev.edge.core.Platform;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;

/** Where this app's files lie on a phone. */
final class Device implements Platform {
    private final Context context;

    Device(Context context) {
        this.context = context;
    }

    @Override
    public File files() {
        return context.getFilesDir();
    }

    /** `edge push` writes to the app's folder of the shared storage; there is none while that is not mounted. */
    @Override
    public List<File> pushed() {
        List<File> folders = new ArrayList<>();
        File shared = context.getExternalFilesDir("models");
        if (shared != null) {
            folders.add(shared);
        }
        return folders;
    }

    @Override
    public InputStream asset(String name) throws IOException {
        return context.getAssets().open(name);
    }

    @Override
    public File libraries() {
        return new File(context.getApplicationInfo().nativeLibraryDir);
    }

    @Override
    public File proc() {
        return new File("/proc");
    }
}
