"""Threads that paint and look while the page stays awake."""

import logging
from collections.abc import Callable
from threading import Condition, Thread

from t2ilib.errors import InputError

Job = Callable[[], None]


class Worker:
    """Does one job after the other; a newer job of a kind takes the place of one that still waits.

    What may come later has a thread of its own: whoever asks for pictures does not wait until older ones are judged.
    `failed` is told in one sentence of a job that raised: an InputError's own, or that the log has more.
    """

    def __init__(self, failed: Callable[[str], None]):
        self._failed = failed
        self._waiting: dict[bool, dict[str, Job]] = {False: {}, True: {}}  # by whether it may come later
        self._doing: dict[bool, str | None] = {False: None, True: None}
        self._news = Condition()
        self._threads: dict[bool, Thread] = {}

    @property
    def busy(self) -> bool:
        """Whether something is being done that somebody waits for."""
        return self._doing[False] is not None

    def ask(self, kind: str, job: Job, later: bool = False) -> None:
        """Have `job` done, after what waits already; `later`: beside the others, whenever there is time."""
        with self._news:
            self._waiting[later][kind] = job
            if later not in self._threads:
                self._threads[later] = Thread(target=self._work, args=(later,), name="explorer", daemon=True)
                self._threads[later].start()
            self._news.notify_all()

    def wait(self, timeout: float | None = None, kind: str | None = None) -> bool:
        """Wait until nothing is left to do, or nothing of a kind; return whether that came in time (seconds)."""

        def idle() -> bool:
            left = {*self._waiting[False], *self._waiting[True], *self._doing.values()} - {None}
            return not left if kind is None else kind not in left

        with self._news:
            return self._news.wait_for(idle, timeout)

    def _work(self, later: bool) -> None:
        waiting = self._waiting[later]
        while True:
            with self._news:
                self._news.wait_for(lambda: waiting)
                self._doing[later] = next(iter(waiting))
                job = waiting.pop(self._doing[later])
            try:
                job()
            except InputError as error:
                self._failed(str(error))
            except Exception as error:  # a page shows a sentence, never a traceback
                logging.getLogger("t2ilib").exception("the explorer failed")
                self._failed(f"That went wrong ({type(error).__name__}); the program's log says more. Try another one.")
            finally:
                with self._news:
                    self._doing[later] = None
                    self._news.notify_all()
