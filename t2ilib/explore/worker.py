"""A thread that paints while the page stays awake."""

import logging
from collections.abc import Callable
from threading import Condition, Thread

from t2ilib.errors import InputError

Job = Callable[[], None]


class Worker:
    """Does one job after the other; a newer job of a kind takes the place of one that still waits.

    `failed` is told in one sentence of a job that raised: an InputError's own, or that the log has more.
    """

    def __init__(self, failed: Callable[[str], None]):
        self._failed = failed
        self._waiting: dict[str, Job] = {}
        self._later: set[str] = set()
        self._doing: str | None = None
        self._news = Condition()
        self._thread: Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being done."""
        return self._doing is not None

    def ask(self, kind: str, job: Job, later: bool = False) -> None:
        """Have `job` done, after what waits already; `later`: when nothing else waits."""
        with self._news:
            self._waiting[kind] = job
            (self._later.add if later else self._later.discard)(kind)
            if self._thread is None:
                self._thread = Thread(target=self._work, name="explorer", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def wait(self, timeout: float | None = None, kind: str | None = None) -> bool:
        """Wait until nothing is left to do, or nothing of a kind; return whether that came in time (seconds)."""

        def idle() -> bool:
            left = {*self._waiting, self._doing} - {None}
            return not left if kind is None else kind not in left

        with self._news:
            return self._news.wait_for(idle, timeout)

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting)
                self._doing = next(
                    (kind for kind in self._waiting if kind not in self._later), next(iter(self._waiting))
                )
                job = self._waiting.pop(self._doing)
            try:
                job()
            except InputError as error:
                self._failed(str(error))
            except Exception as error:  # a page shows a sentence, never a traceback
                logging.getLogger("t2ilib").exception("the explorer failed")
                self._failed(f"That went wrong ({type(error).__name__}); the program's log says more. Try another one.")
            finally:
                with self._news:
                    self._doing = None
                    self._news.notify_all()
