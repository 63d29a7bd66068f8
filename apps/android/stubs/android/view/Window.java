package android.view;

public abstract class Window {
    public native void setStatusBarColor(int color);
    public native void setNavigationBarColor(int color);
    public native void setNavigationBarContrastEnforced(boolean enforced);
    public native void setDecorFitsSystemWindows(boolean fits);
    public abstract View getDecorView();
    public native WindowInsetsController getInsetsController();
}
