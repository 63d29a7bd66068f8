package android.net;

public abstract class Uri {
    public static native Uri parse(String text);
    public abstract String getScheme();
    public abstract String getAuthority();
    public abstract String getPath();
    public abstract String getLastPathSegment();
}
