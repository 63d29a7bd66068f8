package dev.edge.host;

import dev.edge.core.Platform;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.Collections;
import java.util.List;

/** Folders of this computer in place of a phone's: www files assets pushed libraries proc. */
final class HostPlatform implements Platform {
    private final String[] folders;

    HostPlatform(String[] folders) {
        this.folders = folders;
    }

    @Override
    public File files() {
        return new File(folders[1]);
    }

    @Override
    public InputStream asset(String name) throws IOException {
        return new FileInputStream(new File(folders[2], name));
    }

    @Override
    public List<File> pushed() {
        return Collections.singletonList(new File(folders[3]));
    }

    @Override
    public File libraries() {
        return new File(folders[4]);
    }

    @Override
    public File proc() {
        return new File(folders[5]);
    }
}
