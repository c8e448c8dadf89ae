import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.PriorityQueue;

/** Finds the shortest way between two places with Dijkstra's algorithm. */
public final class ShortestPath {

    /** A road to another place, with its length in kilometres. */
    public record Road(String to, int length) {
        public Road {
            if (length < 0) {
                throw new IllegalArgumentException("negative length: " + length);
            }
        }
    }

    /** The places along the way, including both ends, and the total length. */
    public record Route(List<String> places, int length) {
        @Override
        public String toString() {
            return String.join(" → ", places) + " (" + length + " km)";
        }
    }

    private record Visit(String place, int distance) implements Comparable<Visit> {
        @Override
        public int compareTo(Visit other) {
            return Integer.compare(distance, other.distance);
        }
    }

    private final Map<String, List<Road>> roads = new HashMap<>();

    /** Adds a road that can be travelled both ways. */
    public ShortestPath connect(String a, String b, int length) {
        roads.computeIfAbsent(a, key -> new ArrayList<>()).add(new Road(b, length));
        roads.computeIfAbsent(b, key -> new ArrayList<>()).add(new Road(a, length));
        return this;
    }

    /** Returns the shortest route, or nothing if the places are not connected. */
    public Optional<Route> find(String start, String goal) {
        Map<String, Integer> best = new HashMap<>();
        Map<String, String> previous = new HashMap<>();
        PriorityQueue<Visit> queue = new PriorityQueue<>();
        best.put(start, 0);
        queue.add(new Visit(start, 0));

        while (!queue.isEmpty()) {
            Visit visit = queue.remove();
            if (visit.distance() > best.get(visit.place())) {
                continue; // a shorter way was found in the meantime
            }
            if (visit.place().equals(goal)) {
                return Optional.of(new Route(trace(previous, goal), visit.distance()));
            }
            for (Road road : roads.getOrDefault(visit.place(), List.of())) {
                int distance = visit.distance() + road.length();
                if (distance < best.getOrDefault(road.to(), Integer.MAX_VALUE)) {
                    best.put(road.to(), distance);
                    previous.put(road.to(), visit.place());
                    queue.add(new Visit(road.to(), distance));
                }
            }
        }
        return Optional.empty();
    }

    private static List<String> trace(Map<String, String> previous, String goal) {
        Deque<String> places = new ArrayDeque<>();
        for (String place = goal; place != null; place = previous.get(place)) {
            places.addFirst(place);
        }
        return List.copyOf(places);
    }

    public static void main(String[] args) {
        ShortestPath map = new ShortestPath()
                .connect("Mill", "Bridge", 4)
                .connect("Mill", "Forest", 2)
                .connect("Forest", "Bridge", 1)
                .connect("Bridge", "Harbour", 5)
                .connect("Forest", "Harbour", 9)
                .connect("Island", "Lighthouse", 3);

        for (String goal : List.of("Bridge", "Harbour", "Lighthouse")) {
            System.out.println(map.find("Mill", goal)
                    .map(Route::toString)
                    .orElse("There is no way from Mill to " + goal + "."));
        }
    }
}
