package android.app;

import android.content.ComponentCallbacks2;
import android.content.ContextWrapper;
import android.content.Intent;
import android.os.Bundle;
import android.view.View;
import android.view.Window;

public class Activity extends ContextWrapper implements ComponentCallbacks2 {
    public static final int RESULT_OK = -1;

    protected native void onCreate(Bundle state);
    protected native void onStart();
    protected native void onStop();
    protected native void onDestroy();
    protected native void onActivityResult(int request, int result, Intent data);
    public native void onBackPressed();
    public native void onTrimMemory(int level);
    public native void setContentView(View view);
    public final native void runOnUiThread(Runnable action);
    public native void startActivityForResult(Intent intent, int request);
    public native Window getWindow();
    public native boolean isChangingConfigurations();
    public native void recreate();
    public native void finish();
    public native boolean isFinishing();
    public native boolean moveTaskToBack(boolean nonRoot);
}
