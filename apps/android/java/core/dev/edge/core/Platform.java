package dev.edge.core;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.util.List;

/** What the device gives: the activity's on a phone, HostServer's on a computer. */
public interface Platform {
    /** The app's own folder: models/, history/, settings.json. */
    File files();

    /** Folders that `edge push` may have filled. */
    List<File> pushed();

    /** FileNotFoundException when it is not there. */
    InputStream asset(String name) throws IOException;

    /** Where llama.cpp's libraries are. */
    File libraries();

    /** /proc */
    File proc();
}
