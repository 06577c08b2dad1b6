"""First and last names of fictional people."""

from __future__ import annotations

FIRST_NAMES = {
    "female": tuple(
        """Anna Bella Clara Diana Elena Fiona Greta Hanna Irene Julia Karin Laura Maria Nora Olga Paula Rosa Sara Tina Vera
        Wanda Yara Zoe Alice Carmen Edith Flora Gloria Helen Ines Jana Lucia Mona Nina Petra Ruth Sonia Tamara Ursula Viola""".split()
    ),
    "male": tuple(
        """Adam Boris Carl David Emil Felix Georg Hugo Ivan Jonas Karl Leon Martin Nils Oscar Peter Robert Simon Thomas Victor
        Walter Yusuf Zeno Albert Bruno Cesar Dario Erik Frank Gustav Henry Igor Jakob Lukas Marco Norman Otto Pablo Ralf Stefan""".split()
    ),
}
LAST_NAMES = tuple(
    """Abbott Baker Castillo Dawson Ellis Fischer Garcia Hansen Ivanov Jensen Keller Lambert Moreau Novak Olsen Parker Quinn Rossi
    Schmidt Tanaka Ulrich Vargas Weber Young Zeller Andrade Becker Conti Duarte Eriksen Ferrari Gruber Hoffmann Ibarra Janssen Kovacs
    Lindberg Mancini Nakamura Ortega Petrov Ramirez Santos Torres Urban Vidal Wagner Ximenes Yilmaz Zimmer Arnold Bianchi Carlsen Dietrich
    Evans Foster Graham Harris Irving Jordan""".split()
)
