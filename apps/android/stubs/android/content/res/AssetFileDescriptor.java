package android.content.res;

import java.io.Closeable;
import java.io.IOException;

public class AssetFileDescriptor implements Closeable {
    public native long getLength();
    public native void close() throws IOException;
}
