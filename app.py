from memleak.app import window

window.show()
