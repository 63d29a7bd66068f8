package android.content;

import android.content.pm.ApplicationInfo;
import android.content.res.AssetManager;
import android.content.res.Resources;
import java.io.File;

public abstract class Context {
    public static final String CLIPBOARD_SERVICE = "clipboard";

    public abstract File getFilesDir();
    public abstract File getExternalFilesDir(String type);
    public abstract AssetManager getAssets();
    public abstract Resources getResources();
    public abstract ContentResolver getContentResolver();
    public abstract ApplicationInfo getApplicationInfo();
    public abstract Context getApplicationContext();
    public abstract Object getSystemService(String name);
}
