package android.webkit;

public abstract class WebSettings {
    public static final int LOAD_NO_CACHE = 2;
    public static final int MIXED_CONTENT_NEVER_ALLOW = 1;

    public abstract void setJavaScriptEnabled(boolean on);
    public abstract void setDomStorageEnabled(boolean on);
    public abstract void setAllowFileAccess(boolean on);
    public abstract void setAllowContentAccess(boolean on);
    public abstract void setAllowFileAccessFromFileURLs(boolean on);
    public abstract void setAllowUniversalAccessFromFileURLs(boolean on);
    public abstract void setBlockNetworkLoads(boolean on);
    public abstract void setGeolocationEnabled(boolean on);
    public abstract void setCacheMode(int mode);
    public abstract void setMixedContentMode(int mode);
    public abstract void setSupportZoom(boolean on);
    public abstract void setTextZoom(int percent);
    public abstract void setForceDark(int mode);
}
