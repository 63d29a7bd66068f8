package android.view;

public abstract class Window {
    public native void setStatusBarColor(int color);
    public native void setNavigationBarColor(int color);
    public native void setDecorFitsSystemWindows(boolean fits);
    public native void addFlags(int flags);
    public native void clearFlags(int flags);
    public abstract View getDecorView();
    public native WindowInsetsController getInsetsController();
}
