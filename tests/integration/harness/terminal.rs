//! A terminal for the commands that ask before they change something.

use std::fs::{File, OpenOptions};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A terminal of so many columns: its screen, and its keyboard.
pub fn open(columns: u16) -> (File, File) {
    let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&keys).and_then(|()| unlockpt(&keys)).expect("ours");
    let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&keys, size).expect("a size");
    let name = ptsname(&keys, Vec::new()).expect("a name").into_string().expect("text");
    let screen = OpenOptions::new().read(true).write(true).open(name).expect("a screen");
    (screen, File::from(keys))
}
