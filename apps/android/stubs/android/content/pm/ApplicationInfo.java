package android.content.pm;

public class ApplicationInfo {
    public static final int FLAG_DEBUGGABLE = 2;

    public String nativeLibraryDir;
    public String sourceDir;
    public int flags;
}
