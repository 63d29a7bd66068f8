package android.content;

import android.content.pm.ApplicationInfo;
import android.content.res.AssetManager;
import android.content.res.Resources;
import java.io.File;

public class ContextWrapper extends Context {
    public native File getFilesDir();
    public native File getExternalFilesDir(String type);
    public native AssetManager getAssets();
    public native Resources getResources();
    public native ContentResolver getContentResolver();
    public native ApplicationInfo getApplicationInfo();
    public native Context getApplicationContext();
    public native Object getSystemService(String name);
}
